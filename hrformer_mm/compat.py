# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The one place that knows about broken upstream versions.

Each function mends one fault, names the versions that have it, and touches
nothing that works. ``install`` is called when ``hrformer_mm`` is imported.
"""
import pkgutil
import sys
from collections import OrderedDict
from contextlib import redirect_stderr, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Callable, List, Tuple, Union
from warnings import catch_warnings, simplefilter

OPS_ERROR = (
    'mmcv.ops.{} needs mmcv with compiled ops, but {} is installed without. '
    'HRFormer needs none of them. To use models that do: pip uninstall '
    'mmcv-lite && mim install "mmcv==2.1.0"')


class MissingOps(ModuleType):
    """Stands in for ``mmcv._ext``; its functions raise when called.

    mmpose.models, mmseg.models and mmdet.models import mmcv.ops, which asks
    for every compiled function at import time.
    """

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise NotImplementedError(OPS_ERROR.format(name, 'mmcv-lite'))

        missing.__name__ = name
        return missing


def provide_mmcv_ext() -> bool:
    """Let mmcv.ops be imported where nothing was compiled.

    For mmcv-lite of all versions, and mmcv built without its extension. A
    compiled ``mmcv._ext`` is left alone.
    """
    name = 'mmcv._ext'
    mmcv = find_spec('mmcv')
    if mmcv is None or name in sys.modules or PathFinder.find_spec(
            name, mmcv.submodule_search_locations):
        return False
    module = MissingOps(name)
    # A spec of None makes pkgutil.find_loader raise, which mmengine calls.
    module.__spec__ = ModuleSpec(name, loader=None, origin='hrformer_mm')
    sys.modules[name] = module
    return True


class XtcocotoolsFinder(MetaPathFinder):
    """Find :mod:`hrformer_mm.xtcocotools` in place of a missing xtcocotools.

    So it does for one that was compiled for another NumPy, which raises
    errors of several types. It looks when xtcocotools is first imported.
    """

    def find_spec(self, name: str, path=None, target=None):
        if name != 'xtcocotools':
            return None
        real = PathFinder.find_spec(name)
        if real is not None and self.works(real):
            return None
        folder = Path(__file__).parent / 'xtcocotools'
        return spec_from_file_location(
            name,
            folder / '__init__.py',
            submodule_search_locations=[str(folder)])

    def works(self, package: ModuleSpec) -> bool:
        """Whether the compiled part of a package can be used.

        One built for numpy 2 is imported, and fails at the first mask.
        """
        spec = PathFinder.find_spec('xtcocotools._mask',
                                    package.submodule_search_locations)
        if spec is None or spec.loader is None:
            return False
        try:
            # NumPy writes a page about a module made for another version.
            with redirect_stderr(StringIO()), catch_warnings():
                simplefilter('ignore')
                module = module_from_spec(spec)
                spec.loader.exec_module(module)
                import numpy as np
                module.decode(
                    module.encode(np.ones((1, 1, 1), 'u1', order='F')))
        except Exception:
            return False
        # An extension must not be loaded twice.
        sys.modules['xtcocotools._mask'] = module
        return True


def serve_xtcocotools() -> bool:
    """Let MMPose be imported and evaluate without a compiled xtcocotools.

    Its wheels are made for numpy 1 (xtcocoapi#45), there are none for Python
    3.12 and newer, and it cannot be built on Python 3.13.
    """
    if any(isinstance(f, XtcocotoolsFinder) for f in sys.meta_path):
        return False
    sys.meta_path.insert(0, XtcocotoolsFinder())
    return True


def restore_find_loader() -> bool:
    """Bring back ``pkgutil.find_loader``, which Python 3.14 has removed.

    mmengine <= 0.10.7 and mmcv <= 2.2.0 ask it for ``mmcv._ext``.
    """
    if hasattr(pkgutil, 'find_loader'):
        return False
    setattr(pkgutil, 'find_loader', find_spec)
    return True


def buffer_method(owner: type, name: str):
    """What ``getattr`` is for in pickled logs, and nothing more of it.

    A ``HistoryBuffer`` is written with its methods ``min``, ``max``, ...

    Raises:
        UnpicklingError: For anything else.
    """
    from mmengine.logging.history_buffer import HistoryBuffer
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UnpicklingError(f'refused getattr of {owner!r}, {name!r}')
    return getattr(owner, name)


def harmless_types() -> List[Union[type, Tuple[Callable, str]]]:
    """What a checkpoint of mmengine's Runner holds besides tensors.

    The logged scalars: a buffer of two numpy arrays each with its methods,
    and how numpy rebuilds an array or a scalar.
    """
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer
    core = getattr(np, '_core', None) or np.core
    kinds = [np.dtype(t) for t in ('f2', 'f4', 'f8', 'i4', 'i8', 'u1', '?')]
    return [
        HistoryBuffer, np.ndarray, np.dtype, core.multiarray._reconstruct,
        core.multiarray.scalar, (buffer_method, 'builtins.getattr'),
        *{type(kind)
          for kind in kinds}
    ]


def allow_runner_checkpoints() -> bool:
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints.

    torch >= 2.6 refuses what mmengine <= 0.10.7 writes (mmengine#1655), so
    resuming, load_from and testing fail. The types are added to torch's
    allow-list; anything else is still refused.
    """
    import torch
    from torch.torch_version import TorchVersion
    if find_spec('mmengine') is None or TorchVersion(
            torch.__version__) < '2.6':
        return False
    torch.serialization.add_safe_globals([*harmless_types()])
    return True


def allow_official_checkpoints() -> bool:
    """Let the official classification checkpoints be read.

    They hold their yacs config, which torch >= 2.6 refuses. It is read as the
    plain mapping it is; yacs itself is not touched. Older versions cannot read
    one type as another.
    """
    import torch
    from torch.torch_version import TorchVersion
    if TorchVersion(torch.__version__) < '2.6':
        return False
    torch.serialization.add_safe_globals([(OrderedDict,
                                           'yacs.config.CfgNode')])
    return True


def register_config_package() -> bool:
    """Let configs inherit from ``hrformer_mm::pose/...``.

    mmengine <= 0.10.7 knows a fixed list of packages only (mmengine#1410), and
    looks for an editable install (PEP 660) in site-packages, where it is not.
    The name of a file of the package, in place of the distribution's, makes
    it ask Python where the package is.
    """
    if find_spec('mmengine') is None:
        return False
    from mmengine.config import utils
    utils.MODULE2PACKAGE.setdefault('hrformer_mm', __name__)
    return True


def install():
    """Mend everything; safe to call again.

    A torch that cannot be imported is left to those that need it: check_env
    must run without, to say so.
    """
    with suppress(ImportError, OSError):
        provide_mmcv_ext()
        serve_xtcocotools()
        restore_find_loader()
        allow_runner_checkpoints()
        allow_official_checkpoints()
        register_config_package()
