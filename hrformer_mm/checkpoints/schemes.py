# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Names of checkpoints that mmengine's loader does not know by itself.

Importing this module registers two kinds of names and leaves all others as
they are: ``hrformer_mm://NAME`` looks for a file where
:func:`~hrformer_mm.checkpoints.find_file` looks, for any model, and
``*.safetensors`` is read as such.
"""
from collections import OrderedDict
from contextlib import contextmanager
from typing import Any, Iterator, Mapping

from mmengine.runner.checkpoint import CheckpointLoader

from .files import find_file, read_checkpoint

PREFIX = 'hrformer_mm://'
LOCAL = r'(?![\w+.-]+://).*\.pth(\.tar)?$'  # all but URLs


@CheckpointLoader.register_scheme(r'.*\.safetensors$')
def load_from_safetensors(filename: str, map_location: Any) -> Mapping:
    """Read a file that mmengine would take for a pickle."""
    return read_checkpoint(filename, map_location)


@CheckpointLoader.register_scheme(PREFIX)
def load_from_weights(filename: str, map_location: Any) -> Mapping:
    """Find a file by its name and read it without running code."""
    name = filename[len(PREFIX):] if filename.startswith(PREFIX) else filename
    return read_checkpoint(find_file(name), map_location)


@contextmanager
def protected_loading() -> Iterator[None]:
    """Let mmengine read every local ``.pth`` as we do, in our own commands.

    Nothing in a file is run, with any version of torch, a damaged file is an
    error of one line, and files are found by their names.
    """
    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = OrderedDict(
        [(LOCAL, load_from_weights), *schemes.items()])
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes
