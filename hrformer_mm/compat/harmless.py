# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Types that checkpoints of mmengine's Runner hold besides tensors.

Whatever a dataset, a metric or a hook puts into ``dataset_meta`` or into the
message hub is saved: numpy arrays and scalars, bytes, sets, paths, dates.
Reading them runs no code of the file. :data:`torch.load` refuses most of them
with ``weights_only=True``; :mod:`hrformer_mm.compat` adds them to its
allow-list, and :class:`RestrictedUnpickler` reads the same ones with a torch
that has no list to add to.
"""
import collections
import datetime
import decimal
import fractions
import io
import pathlib
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from importlib import import_module
from pickle import UnpicklingError
from typing import Any, Dict, Iterable, List, Optional

import numpy as np

MOST = 2**24  # length of a range that is read: sets and lists are made of it
# Characters of numpy's types that hold plain values: no objects, no records.
PLAIN = '?bBhHiIlLqQefdgFDGSUmM'


# Stands in for mmengine's OneCycleParamScheduler, so that none can be made.
ONE_CYCLE = 'OneCycleParamScheduler'


def known_method(owner: Any, name: str) -> Any:
    """Stand in for ``getattr`` as mmengine's states need it.

    A ``HistoryBuffer`` is written with its methods ``min``, ``max``, ..., a
    ``OneCycleLR`` with its function for annealing.

    Raises:
        UnpicklingError: For anything else.
    """
    from mmengine.logging.history_buffer import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
    if owner is HistoryBuffer and not name.startswith('_'):
        return getattr(owner, name)
    if owner is ONE_CYCLE and name in ('_annealing_cos', '_annealing_linear'):
        return getattr(OneCycleParamScheduler, name)
    raise UnpicklingError(f'refused getattr of {owner!r}, {name!r}')


def latin_bytes(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, as pickles of bytes need it.

    Raises:
        UnpicklingError: For another encoding.
    """
    if encoding != 'latin1':
        raise UnpicklingError(f'refused to encode as {encoding!r}')
    return text.encode(encoding)


def empty_array(kind: type, shape: tuple, code: bytes) -> np.ndarray:
    """Stand in for numpy's ``_reconstruct``, as numpy itself calls it.

    Raises:
        UnpicklingError: For other classes, and for sizes.
    """
    if kind is not np.ndarray or tuple(shape) != (0, ):
        raise UnpicklingError(f'refused an array of {kind!r}, {shape!r}')
    return np.empty((0, ), np.dtype(code.decode('ascii')))


def plain_dtype(*args: Any) -> np.dtype:
    """Stand in for ``numpy.dtype``, for plain values only.

    Raises:
        UnpicklingError: For objects and records.
    """
    made = np.dtype(*args)
    if made.char not in PLAIN:
        raise UnpicklingError(f'refused a numpy array of {made}')
    return made


def short_range(*args: int) -> range:
    """Return a range, of which no list can fill the memory.

    Raises:
        UnpicklingError: If it is longer than :data:`MOST`.
    """
    made = range(*args)
    if len(made) > MOST:
        raise UnpicklingError(f'refused a range of length {len(made)}')
    return made


def as_list(items: Iterable = (), maxlen: Optional[int] = None) -> List[Any]:
    """Read a deque, which torch cannot append to, as a list."""
    return list(items)


def as_dict(factory: Any = None) -> Dict[Any, Any]:
    """Read a defaultdict, to which torch adds no items, as a dict."""
    return {}


def numpy_globals() -> Dict[str, Any]:
    """Types of arrays and scalars of plain values, and what makes them."""
    # numpy 1.26 has a numpy._core, but only stubs of its modules.
    core = 'core' if np.__version__.startswith('1.') else '_core'
    multiarray = import_module(f'numpy.{core}.multiarray')
    found: Dict[str, Any] = {'numpy.ndarray': np.ndarray,
                             'numpy.dtype': plain_dtype}
    for module in ('numpy.core', 'numpy._core'):  # of numpy 1 and 2
        found[f'{module}.multiarray._reconstruct'] = empty_array
        found[f'{module}.multiarray.scalar'] = multiarray.scalar
    for dtype in map(np.dtype, PLAIN):
        # torch looks for the class of a dtype that it gives a state to.
        kind = type(dtype)
        found[f'{kind.__module__}.{kind.__qualname__}'] = kind
        found[f'numpy.{dtype.type.__name__}'] = dtype.type
    found['numpy.bool_'] = found['numpy.bool'] = np.bool_
    return found


def path_globals() -> Dict[str, Any]:
    """Paths of either system; one of the other system is read as pure."""
    found: Dict[str, Any] = {}
    here = type(pathlib.Path())
    for name in ('PosixPath', 'WindowsPath', 'PurePosixPath',
                 'PureWindowsPath'):
        pure = getattr(pathlib, f'Pure{name.removeprefix("Pure")}')
        kind = here if name == here.__name__ else pure
        for module in ('pathlib', 'pathlib._local'):  # the second in 3.13
            found[f'{module}.{name}'] = kind
    return found


def harmless_globals() -> Dict[str, Any]:
    """What a pickle may name, by its full name; mmengine is installed."""
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
        # Official classification checkpoints hold their yacs config, which is
        # read as the plain mapping it is; yacs itself is not touched.
        'yacs.config.CfgNode': collections.OrderedDict,
    }  # yapf: disable


class RestrictedUnpickler(pickle.Unpickler):
    """Read tensors and harmless types only, with any version of torch."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names.

        Raises:
            UnpicklingError: If it is not on the list; as torch words it.
        """
        from torch._weights_only_unpickler import _get_allowed_globals
        if (module, name) in NAME_MAPPING:  # of Python 2, as protocol 2 has
            module, name = NAME_MAPPING[module, name]
        full = f'{IMPORT_MAPPING.get(module, module)}.{name}'
        for known in (_get_allowed_globals(), harmless_globals()):
            if full in known:
                return known[full]
        raise UnpicklingError(f'Unsupported global: GLOBAL {full}')


class RestrictedPickle:
    """The parts of Python's ``pickle`` that :func:`torch.load` calls."""
    __name__ = 'pickle'
    Unpickler = RestrictedUnpickler
    UnpicklingError = UnpicklingError

    @staticmethod
    def load(file: io.BufferedIOBase, **kwargs: Any) -> Any:
        return RestrictedUnpickler(file, **kwargs).load()
