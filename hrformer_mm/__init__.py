# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer for MMPose, MMSegmentation and MMPretrain.

Importing the package works around what is broken in the installed frameworks
(see :mod:`hrformer_mm.compat`), lets several processes train on CPU
(:mod:`hrformer_mm.engine.several_cpus`), makes its classes reachable from
every scope as ``hrformer_mm.HRFormer`` and so on, and its models by name in
the frameworks' functions (:mod:`hrformer_mm.zoo.model_names`). None
of the frameworks is imported before one of its classes is asked for.
"""
from typing import Any

from . import compat
from .engine import several_cpus
from .utils import moved
from .version import __version__

compat.install()
several_cpus.install()
moved.install()

__all__ = ['__version__', 'get_model', 'list_models', 'load_predictor']


def _register_names(module: Any):
    from .zoo.model_names import PATCHES
    PATCHES[module.__name__](module)


for _name in ('mmengine.infer.infer', 'mmpose.apis.inference',
              'mmseg.apis.inference', 'mmpretrain.apis.model'):
    compat.after_import.add(_name, _register_names)


def __getattr__(name: str) -> Any:
    """Import the functions for models by name when they are used."""
    if name in __all__:
        from . import apis
        return getattr(apis, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
