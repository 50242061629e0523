# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Suggest valid names for misspelt ones."""
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import (
    Any,
)

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
    found: dict[str, Any] = {}
    for call in reversed(calls):
        found.update((k, p.annotation) for k, p in parameters(call).items())
    return {k: v for k, v in found.items()
            if k not in ('self', 'args', 'kwargs')}


def registered(registry: Any, name: str) -> set[str]:
    """Return the names in a registry, with the same scope as ``name``."""
    scope = name.rpartition('.')[0]
    found: set[str] = set()
    while registry is not None:
        child = registry.children.get(scope)
        if not scope:
            found |= {*registry.module_dict, *getattr(registry, 'entries', ())}
        elif child is not None:
            names = {*child.module_dict, *getattr(child, 'entries', ())}
            found |= {f'{scope}.{n}' for n in names}
        registry = registry.parent
    return found


def all_registries() -> Iterator[Any]:
    """Yield mmengine's registries, each followed by those of frameworks."""
    from mmengine import registry as mmengine
    for root in vars(mmengine).values():
        if isinstance(root, mmengine.Registry):
            yield root
            yield from root.children.values()


def find_registry(scope: str | None, name: str) -> Any:
    """Return the registry of a scope (default: mmengine's) and a name."""
    return next((r for r in all_registries()
                 if r.name == name and r.scope == (scope or 'mmengine')), None)


def own_scopes() -> list[str]:
    """Return the current scope, if there is one, and this package's."""
    from mmengine import DefaultScope
    current = DefaultScope.get_current_instance()
    return [*([current.scope_name] if current else ()), 'hrformer_mm']


def owners(entry: Callable) -> Iterator[tuple[Callable, Callable]]:
    """Yield pairs of an entry and its function.

    For a class, these are the class and its bases, and their ``__init__``.
    """
    if not inspect.isclass(entry):
        yield entry, entry
        return
    for kind in inspect.getmro(entry):
        if '__init__' in vars(kind):
            yield kind, vars(kind)['__init__']


def callables(name: str) -> Iterator[Callable]:
    """Yield registered entries by a qualified name like ``HRNet.__init__``.

    If several frameworks have a class of that name, only those of the current
    scope and of this package are returned.
    """
    found: dict[Callable, str] = {}
    for registry in all_registries():
        for entry in registry.module_dict.values():
            for owner, call in owners(entry):
                if getattr(call, '__qualname__', '') == name:
                    found.setdefault(owner, registry.scope)
    meant = [owner for owner, scope in found.items() if scope in own_scopes()]
    yield from meant or found


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
        registry = find_registry(unknown[2], unknown[3])
        return did_you_mean(unknown[1], registered(registry, unknown[1]))
    return ''
