# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer for MMPose, MMSegmentation and MMPretrain.

Importing the package works around what is broken in the installed frameworks
(see :mod:`hrformer_mm.compat`) and makes its classes reachable from every
scope as ``hrformer_mm.HRFormer`` and so on. None of the
frameworks is imported before one of its classes is asked for.
"""
from . import compat
from .utils import moved
from .version import __version__

compat.install()
moved.install()

__all__ = ['__version__']
