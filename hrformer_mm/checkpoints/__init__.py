# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Read and write HRFormer checkpoints in all released layouts.

``keymap`` has the names, ``convert`` converts between layouts, ``files``
reads and writes files, ``loading`` loads models, ``schemes`` extends
mmengine's loader. Importing the package changes nothing outside of it.
"""
import warnings
from typing import Any

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
RENAMED = dict(Report='ConversionReport', describe='infer_arguments',
               write_truths='write_semantics')  # names of version 0.1


def __getattr__(name: str) -> Any:
    if name not in RENAMED:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    warnings.warn(f'{__name__}.{name} is now {RENAMED[name]}; the old name '
                  'will be removed in version 0.3', DeprecationWarning,
                  stacklevel=2)  # yapf: disable
    return globals()[RENAMED[name]]
