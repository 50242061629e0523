# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Harmless types in checkpoints of mmengine's Runner.

Everything that a dataset, a metric or a hook stores in ``dataset_meta`` or in
the message hub is saved: numpy arrays and scalars, bytes, sets, paths, dates.
Unpickling them runs no code of the file. ``torch.load(weights_only=True)``
rejects most of them. :mod:`hrformer_mm.compat` adds them to torch's
allow-list, and :class:`RestrictedUnpickler` reads the same types with versions
of torch that have no allow-list.
"""
import collections
import datetime
import decimal
import fractions
import io
import pathlib
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterable
from importlib import import_module
from pickle import UnpicklingError
from typing import Any

import numpy as np

MOST = 2**24  # maximum length of a range, from which lists can be made
# Type characters of numpy's plain values: no objects, no records.
PLAIN = '?bBhHiIlLqQefdgFDGSUmM'


# Replaces mmengine's OneCycleParamScheduler, so that none can be created.
ONE_CYCLE = 'OneCycleParamScheduler'


def known_method(owner: Any, name: str) -> Any:
    """Replace ``getattr`` for the methods in mmengine's states.

    A ``HistoryBuffer`` is saved with its methods ``min``, ``max``, ..., a
    ``OneCycleLR`` with its annealing function.

    Raises:
        UnpicklingError: For any other object or name.
    """
    from mmengine.logging.history_buffer import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
    if owner is HistoryBuffer and not name.startswith('_'):
        return getattr(owner, name)
    if owner is ONE_CYCLE and name in ('_annealing_cos', '_annealing_linear'):
        return getattr(OneCycleParamScheduler, name)
    raise UnpicklingError(f'refused getattr of {owner!r}, {name!r}')


def latin_bytes(text: str, encoding: str) -> bytes:
    """Replace ``_codecs.encode`` for pickled bytes.

    Raises:
        UnpicklingError: If the encoding is not ``'latin1'``.
    """
    if encoding != 'latin1':
        raise UnpicklingError(f'refused to encode as {encoding!r}')
    return text.encode(encoding)


def empty_array(kind: type, shape: tuple, code: bytes) -> np.ndarray:
    """Replace numpy's ``_reconstruct`` for the arguments that numpy passes.

    Raises:
        UnpicklingError: For other classes and for arrays that are not empty.
    """
    if kind is not np.ndarray or tuple(shape) != (0, ):
        raise UnpicklingError(f'refused an array of {kind!r}, {shape!r}')
    return np.empty((0, ), np.dtype(code.decode('ascii')))


def plain_dtype(*args: Any) -> np.dtype:
    """Replace ``numpy.dtype`` for plain values.

    Raises:
        UnpicklingError: For objects and records.
    """
    made = np.dtype(*args)
    if made.char not in PLAIN:
        raise UnpicklingError(f'refused a numpy array of {made}')
    return made


def short_range(*args: int) -> range:
    """Return a range that is too short to exhaust memory as a list.

    Raises:
        UnpicklingError: If it is longer than :data:`MOST`.
    """
    made = range(*args)
    if len(made) > MOST:
        raise UnpicklingError(f'refused a range of length {len(made)}')
    return made


def as_list(items: Iterable = (), maxlen: int | None = None) -> list[Any]:
    """Replace a deque, to which torch cannot append, by a list."""
    return list(items)


def as_dict(factory: Any = None) -> dict[Any, Any]:
    """Replace a defaultdict, to which torch adds no items, by a dict."""
    return {}


def numpy_globals() -> dict[str, Any]:
    """Return types and constructors of arrays and scalars by full name."""
    # numpy 1.26 has a numpy._core, but only stubs of its modules.
    core = 'core' if np.__version__.startswith('1.') else '_core'
    multiarray = import_module(f'numpy.{core}.multiarray')
    found: dict[str, Any] = {'numpy.ndarray': np.ndarray,
                             'numpy.dtype': plain_dtype}
    for module in ('numpy.core', 'numpy._core'):  # of numpy 1 and 2
        found[f'{module}.multiarray._reconstruct'] = empty_array
        found[f'{module}.multiarray.scalar'] = multiarray.scalar
    for dtype in map(np.dtype, PLAIN):
        # torch looks up the class of a dtype before it sets its state.
        kind = type(dtype)
        found[f'{kind.__module__}.{kind.__qualname__}'] = kind
        found[f'numpy.{dtype.type.__name__}'] = dtype.type
    found['numpy.bool_'] = found['numpy.bool'] = np.bool_
    return found


def path_globals() -> dict[str, Any]:
    """Return path types by full name; those of other systems become pure."""
    found: dict[str, Any] = {}
    here = type(pathlib.Path())
    for name in ('PosixPath', 'WindowsPath', 'PurePosixPath',
                 'PureWindowsPath'):
        pure = getattr(pathlib, f'Pure{name.removeprefix("Pure")}')
        kind = here if name == here.__name__ else pure
        for module in ('pathlib', 'pathlib._local'):  # Python 3.13
            found[f'{module}.{name}'] = kind
    return found


def harmless_globals() -> dict[str, Any]:
    """Return all harmless types by full name; requires mmengine."""
    import torch
    from mmengine.config import ConfigDict
    from mmengine.logging.history_buffer import HistoryBuffer
    return {
        **{f'builtins.{kind.__name__}': kind
           for kind in (bool, bytearray, bytes, complex, dict, float,
                        frozenset, int, list, set, slice, str, tuple)},
        '_codecs.encode': latin_bytes,
        'builtins.range': short_range,
        'builtins.Ellipsis': Ellipsis,
        'builtins.getattr': known_method,
        'collections.Counter': collections.Counter,
        'collections.OrderedDict': collections.OrderedDict,
        'collections.defaultdict': as_dict,
        'collections.deque': as_list,
        **{f'datetime.{kind.__name__}': kind
           for kind in (datetime.date, datetime.datetime, datetime.time,
                        datetime.timedelta, datetime.timezone)},
        'decimal.Decimal': decimal.Decimal,
        'fractions.Fraction': fractions.Fraction,
        'torch.device': torch.device,  # torch 2.1 does not list it itself
        **path_globals(),
        **numpy_globals(),
        'mmengine.config.config.ConfigDict': ConfigDict,
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        f'mmengine.optim.scheduler.param_scheduler.{ONE_CYCLE}': ONE_CYCLE,
        # Official classification checkpoints contain their yacs config, which
        # is read as a plain mapping; yacs is not imported.
        'yacs.config.CfgNode': collections.OrderedDict,
    }  # yapf: disable


class RestrictedUnpickler(pickle.Unpickler):
    """Read tensors and harmless types only, with any version of torch."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object that a pickle refers to.

        Raises:
            UnpicklingError: If it is not allowed, in the words of torch.
        """
        from torch._weights_only_unpickler import _get_allowed_globals
        if (module, name) in NAME_MAPPING:  # protocol 2 has Python 2 names
            module, name = NAME_MAPPING[module, name]
        full = f'{IMPORT_MAPPING.get(module, module)}.{name}'
        for known in (_get_allowed_globals(), harmless_globals()):
            if full in known:
                return known[full]
        raise UnpicklingError(f'Unsupported global: GLOBAL {full}')


class RestrictedPickle:
    """Replacement for the parts of ``pickle`` that :func:`torch.load` uses."""
    __name__ = 'pickle'
    Unpickler = RestrictedUnpickler
    UnpicklingError = UnpicklingError

    @staticmethod
    def load(file: io.BufferedIOBase, **kwargs: Any) -> Any:
        return RestrictedUnpickler(file, **kwargs).load()
