# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convert the types of pure-Python (lazy) configs to registered names.

A pure-Python config may contain a class (``type=LoadImage``) instead of its
registered name, and is saved with the full path of the class
(``mmpose.datasets.transforms.LoadImage``). :func:`name_types` replaces all
these forms by the registered name with its scope (``mmpose.LoadImage``), which
our tools and those of the frameworks expect.
"""
import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any

from mmengine import registry as mmengine
from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

from ..tasks import SCOPES

LAZY = (LazyAttr, LazyObject)


def bare_name(kind: Any) -> str:
    """Return the name of a type, or of a class, without its scope."""
    if not isinstance(kind, str):
        kind = getattr(kind, '__name__', None) or str(kind)
    return kind.rpartition('.')[2]


def registries() -> Iterator[Registry]:
    """Yield mmengine's registries and all below them."""
    waiting = [r for r in vars(mmengine).values() if isinstance(r, Registry)]
    while waiting:
        registry = waiting.pop()
        yield registry
        waiting += registry.children.values()


@cache
def registered_name(kind: Any) -> str | None:
    """Return the registered name of a class or function with its scope.

    Names in mmengine's own registries have no scope, as in configs. Returns
    None if no registry has the class.
    """
    for registry in registries():
        for name, entry in registry.module_dict.items():
            if entry is kind:
                return name if registry.scope == 'mmengine' else \
                    f'{registry.scope}.{name}'
    return None


def name_type(kind: Any) -> Any:
    """Return the registered name of a type, or the type if it has none.

    Args:
        kind: Registered name, path of a class, class, or mmengine's lazy
            object for an imported class.
    """
    found: Any = kind
    if isinstance(kind, LAZY):
        found = kind.build()
    elif isinstance(kind, str) and kind.count('.') > 1:
        try:
            found = get_object_from_string(kind)
        except (ImportError, AttributeError, ValueError):
            return kind
    is_code = inspect.isclass(found) or inspect.isroutine(found)
    return is_code and registered_name(found) or kind


def named(value: Any) -> Any:
    """Return a nested value of a config with registered names as types."""
    if isinstance(value, dict):
        return {k: name_type(v) if k == 'type' else named(v)
                for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(named, value))
    return value


def needs_names(value: Any) -> bool:
    """Return whether a type in a nested value is not a registered name."""
    if isinstance(value, dict):
        kind = value.get('type')
        if kind is not None and (not isinstance(kind, str)
                                 or kind.count('.') > 1):
            return True
        return any(map(needs_names, value.values()))
    return isinstance(value, (list, tuple)) and any(map(needs_names, value))


def name_types(cfg: Config) -> Config:
    """Return a config whose types are registered names.

    A config that has no other types is returned itself. A missing
    ``default_scope`` is set to the scope of the model.

    Args:
        cfg: Config, read from a file or made in Python.
    """
    content = cfg._to_lazy_dict()
    if needs_names(content):
        content = named(content)
        new = Config(content, filename=cfg.filename)
        object.__setattr__(new, '_format_python_code',
                           cfg._format_python_code)
        object.__setattr__(new, '_env_variables', cfg.env_variables)
        cfg = new
    if not cfg.get('default_scope') and isinstance(cfg.get('model'), dict):
        scope = str(cfg.model.get('type', '')).partition('.')[0]
        if scope in SCOPES:
            cfg.default_scope = scope
    return cfg
