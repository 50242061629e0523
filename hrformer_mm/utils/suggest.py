# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The nearest valid names for what a config misspells."""
import inspect
import re
import traceback
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Callable, Dict, Iterable, Mapping, Set

ARGUMENT = re.compile(r"got an unexpected keyword argument '(\w+)'")
BUILDER = 'build_from_cfg'  # mmengine's function that builds from a config


def locals_of_builder(error: BaseException) -> Dict[str, Any]:
    """What mmengine was about to build when an error was raised, if it was."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)
              if frame.f_code.co_name == BUILDER]
    return frames[-1].f_locals if frames else {}


def parameters(call: Callable) -> Mapping[str, inspect.Parameter]:
    """Of a function; none of one that is not written in Python."""
    with suppress(ValueError):
        return inspect.signature(call).parameters
    return {}


def arguments(kind: Callable) -> Dict[str, Any]:
    """Arguments of a function, or of a class and its bases, annotated."""
    calls = [vars(c)['__init__'] for c in inspect.getmro(kind)
             if '__init__' in vars(c)] if inspect.isclass(kind) else [kind]
    found: Dict[str, Any] = {}
    for call in reversed(calls):
        found.update((k, p.annotation) for k, p in parameters(call).items())
    return {k: v for k, v in found.items()
            if k not in ('self', 'args', 'kwargs')}


def registered(registry: Any, name: str) -> Set[str]:
    """Names that a registry knows, with the scope of the one looked for."""
    scope = name.rpartition('.')[0]
    found: Set[str] = set()
    while registry is not None:
        child = registry.children.get(scope)
        if not scope:
            found |= {*registry.module_dict, *getattr(registry, 'entries', ())}
        elif child is not None:
            names = {*child.module_dict, *getattr(child, 'entries', ())}
            found |= {f'{scope}.{n}' for n in names}
        registry = registry.parent
    return found


def near_names(error: Exception) -> str:
    """As ``; near are ['arch']``; nothing if no name was unknown."""
    building, text = locals_of_builder(error), str(error)
    names: Iterable[str]
    argument = ARGUMENT.search(text)
    if argument and 'obj_cls' in building:
        word, names = argument[1], arguments(building['obj_cls'])
    elif 'is not in the' in text and 'obj_type' in building:
        word = building['obj_type']
        names = registered(building['registry'], word)
    else:
        return ''
    found = get_close_matches(word, names, 3)
    return f'; near are {found}' if found else ''
