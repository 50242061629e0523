# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer for MMPose, MMSegmentation and MMPretrain.

Importing the package works around what is broken in the installed frameworks
(see :mod:`hrformer_mm.compat`), lets several processes train on CPU
(:mod:`hrformer_mm.engine.several_cpus`), makes its classes reachable from
every scope as ``hrformer_mm.HRFormer`` and so on, and its models by name in
the frameworks' functions (:mod:`hrformer_mm.integrations.model_names`). None
of the frameworks is imported before one of its classes is asked for.
"""
from . import compat
from .engine import several_cpus
from .integrations import model_names
from .utils import moved
from .version import __version__

compat.install()
several_cpus.install()
model_names.install()
moved.install()

__all__ = ['__version__']
