# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checkpoint name schemes for mmengine's loader.

Importing this module registers two schemes and leaves all others unchanged:
``hrformer_mm://NAME`` searches for a file like
:func:`~hrformer_mm.checkpoints.find_file`, for any model, and
``*.safetensors`` is read in this format.
"""
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from .files import find_file, read_checkpoint

PREFIX = 'hrformer_mm://'
# Local files and those of web servers, but none of the frameworks' schemes.
FILES = r'(https?://|(?![\w+.-]+://)).*\.pth(\.tar)?$'


@CheckpointLoader.register_scheme(r'.*\.safetensors$')
def load_from_safetensors(filename: str, map_location: Any) -> Mapping:
    """Read a safetensors file, which mmengine would read as a pickle."""
    return read_checkpoint(filename, map_location)


@CheckpointLoader.register_scheme(PREFIX)
def load_from_weights(filename: str, map_location: Any) -> Mapping:
    """Find a file by its name and read it without executing code."""
    name = filename[len(PREFIX):] if filename.startswith(PREFIX) else filename
    return read_checkpoint(find_file(name), map_location)


@contextmanager
def protected_loading() -> Iterator[None]:
    """Make mmengine find and read ``.pth`` files with our loader.

    With any version of torch, no code in a file is executed, a damaged file
    raises a one-line error, and files are found by their names. Downloads are
    continued, checked and done by one process of a machine.
    """
    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = OrderedDict(
        [(FILES, load_from_weights), *schemes.items()])
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes
