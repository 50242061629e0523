# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Suggest valid names for misspelt ones."""
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from mmengine import DefaultScope

from .config import registries

# Messages of Python and mmengine for unknown names.
ARGUMENT = re.compile(r"([\w.<>]+)\(\) got an unexpected keyword argument "
                      r"'(\w+)'")
ENTRY = re.compile(r'(\S+) is not in the (?:(\S+)::)?(.+?) registry')
BUILDER = 'build_from_cfg'  # mmengine's function that builds from a config


def suggest(names: Sequence[str]) -> str:
    """Return ``". Did you mean 'arch'?"``, or '' without names."""
    names = [repr(name) for name in names]
    return f". Did you mean {' or '.join(names)}?" if names else ''


def did_you_mean(word: str, names: Iterable[str], most: int = 3,
                 cutoff: float = .6) -> str:
    """Suggest the names most similar to a word, best match first."""
    return suggest(get_close_matches(word, sorted(names), most, cutoff))


def parameters(call: Callable) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function; none for C functions."""
    with suppress(ValueError):
        return inspect.signature(call).parameters
    return {}


def arguments(kind: Callable) -> dict[str, Any]:
    """Return annotations of the arguments of a function or a class.

    For a class, the arguments of its bases are included.
    """
    calls = [vars(c)['__init__'] for c in inspect.getmro(kind)
             if '__init__' in vars(c)] if inspect.isclass(kind) else [kind]
    found = {name: parameter.annotation for call in reversed(calls)
             for name, parameter in parameters(call).items()}
    return {name: annotation for name, annotation in found.items()
            if name not in ('self', 'args', 'kwargs')}


def registered(registry: Any, name: str) -> set[str]:
    """Return the names in a registry, with the same scope as ``name``."""
    scope = name.rpartition('.')[0]
    found: set[str] = set()
    while registry is not None:
        part = registry.children.get(scope) if scope else registry
        names = {*part.module_dict, *getattr(part, 'entries', ())
                 } if part is not None else set()
        found |= {f'{scope}.{n}' for n in names} if scope else names
        registry = registry.parent
    return found


def callables(name: str) -> list[Callable]:
    """Return registered entries by a qualified name like ``HRNet.__init__``.

    If several frameworks have a class of that name, only those of the current
    scope and of this package are returned.
    """
    name = name.removesuffix('.__init__')
    found = {(owner, registry.scope): None for registry in registries()
             for entry in registry.module_dict.values()
             for owner in getattr(entry, '__mro__', (entry, ))
             if getattr(owner, '__qualname__', '') == name}
    current = DefaultScope.get_current_instance()
    scopes = ('hrformer_mm', current and current.scope_name)
    return [owner for owner, scope in found if scope in scopes] or [
        owner for owner, _ in found]


def passing_arguments(error: BaseException) -> set[str]:
    """Return arguments of constructors that pass ``kwargs`` to a base."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(
        error.__traceback__)]
    names = [code.co_name for code in codes]
    if BUILDER not in names:
        return set()
    last = len(names) - names[::-1].index(BUILDER)
    return {name for code in codes[last:] if code.co_name == '__init__'
            for name in code.co_varnames[1:code.co_argcount +
                                         code.co_kwonlyargcount]}


def near_names(error: Exception) -> str:
    """Return ``". Did you mean ...?"`` for an error about an unknown name.

    Compares the name in the message with the names in the registries.
    """
    text = str(error.args[0] if error.args else error)
    unexpected, unknown = ARGUMENT.search(text), ENTRY.search(text)
    if unexpected and isinstance(error, TypeError):
        known = {a for call in callables(unexpected[1])
                 for a in arguments(call)}
        return did_you_mean(unexpected[2], known | passing_arguments(error))
    if unknown and isinstance(error, KeyError):
        name, scope, kind = unknown.groups()
        known = {n for r in registries()
                 if (r.scope, r.name) == (scope or 'mmengine', kind)
                 for n in registered(r, name)}
        return did_you_mean(name, known)
    return ''
