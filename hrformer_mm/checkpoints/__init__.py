# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Read and write HRFormer checkpoints in all released layouts.

``keymap`` has the names, ``convert`` converts between layouts, ``files``
reads and writes files, ``loading`` loads models, ``schemes`` extends
mmengine's loader. Importing the package changes nothing outside of it.
"""
from .convert import Report, convert, interpolate_table
from .files import find_file, read_checkpoint, write_checkpoint
from .infer_arch import describe
from .loading import (
                      await_owner,
                      load_pretrained,
                      match_state_dict,
                      write_truths,
)

__all__ = [
    'Report', 'await_owner', 'convert', 'describe', 'find_file',
    'interpolate_table', 'load_pretrained', 'match_state_dict',
    'read_checkpoint', 'write_checkpoint', 'write_truths'
]
