# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Read and write HRFormer checkpoints in all released layouts.

``keymap`` has the names, ``convert`` converts between layouts, ``files``
reads and writes files, ``loading`` loads models, ``schemes`` extends
mmengine's loader. Importing the package changes nothing outside of it.
"""
from .convert import ConversionReport, convert, interpolate_table
from .files import find_file, read_checkpoint, write_checkpoint
from .infer_arch import infer_arguments
from .loading import (
    await_owner,
    load_pretrained,
    match_state_dict,
    write_semantics,
)

__all__ = [
    'ConversionReport', 'await_owner', 'convert', 'infer_arguments',
    'find_file', 'interpolate_table', 'load_pretrained', 'match_state_dict',
    'read_checkpoint', 'write_checkpoint', 'write_semantics'
]
