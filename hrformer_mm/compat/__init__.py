# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Workarounds for faults of upstream versions.

Each function fixes one fault, names the affected versions, and does not change
versions that work. ``install`` is called when ``hrformer_mm`` is imported.
"""
import locale
import os
import pkgutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from io import StringIO
from logging import FileHandler
from multiprocessing import current_process
from pathlib import Path
from types import ModuleType
from typing import Any
from warnings import catch_warnings, simplefilter

OPS_ERROR = (
    'mmcv.ops.{} needs mmcv with compiled ops, but {} is installed without. '
    'HRFormer does not need it. To use models that do: pip uninstall '
    'mmcv-lite && mim install "mmcv==2.1.0"')
# Functions of mmcv._ext that do not have to be compiled, all in ops.py.
OPS = ('nms', 'roi_align_forward', 'roi_align_backward',
       'sigmoid_focal_loss_forward', 'sigmoid_focal_loss_backward')


class MissingOps(ModuleType):
    """Replacement for ``mmcv._ext``.

    Functions in :data:`OPS` work, all others raise when called. mmpose.models,
    mmseg.models and mmdet.models import mmcv.ops, which looks up all compiled
    functions at import time.
    """

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        if name in OPS:
            from . import ops
            return getattr(ops, name)

        def missing(*args, **kwargs):
            raise NotImplementedError(OPS_ERROR.format(name, 'mmcv-lite'))

        missing.__name__ = name
        return missing


def provide_mmcv_ext() -> bool:
    """Make mmcv.ops importable, and detectors run, without compiled ops.

    This concerns all versions of mmcv-lite, and mmcv built without its
    extension. A compiled ``mmcv._ext`` is not replaced.
    """
    name = 'mmcv._ext'
    mmcv = find_spec('mmcv')
    if mmcv is None or name in sys.modules or PathFinder.find_spec(
            name, mmcv.submodule_search_locations):
        return False
    module = MissingOps(name)
    # mmengine calls pkgutil.find_loader, which raises if the spec is None.
    module.__spec__ = ModuleSpec(name, loader=None, origin='hrformer_mm')
    sys.modules[name] = module
    return True


class XtcocotoolsFinder(MetaPathFinder):
    """Finder that replaces a missing or broken xtcocotools.

    It finds :mod:`.xtcocotools` of this package instead. A broken one was
    compiled for another NumPy and raises errors of several types. It is
    tested when xtcocotools is first imported.
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
        """Return whether the compiled part of a package works.

        A build for numpy 2 can be imported, but fails at the first mask.
        """
        spec = PathFinder.find_spec('xtcocotools._mask',
                                    package.submodule_search_locations)
        if spec is None or spec.loader is None:
            return False
        try:
            # NumPy prints a long warning for a module of another version.
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
    """Make MMPose work without a compiled xtcocotools.

    xtcocotools has wheels for numpy 1 only (xtcocoapi#45), none for Python
    3.12 and newer, and cannot be built on Python 3.13.
    """
    if any(isinstance(f, XtcocotoolsFinder) for f in sys.meta_path):
        return False
    sys.meta_path.insert(0, XtcocotoolsFinder())
    return True


def restore_find_loader() -> bool:
    """Restore ``pkgutil.find_loader``, which Python 3.14 has removed.

    mmengine <= 0.10.7 and mmcv <= 2.2.0 call it to find ``mmcv._ext``.
    """
    if hasattr(pkgutil, 'find_loader'):
        return False
    setattr(pkgutil, 'find_loader', find_spec)
    return True


def allow_harmless_types() -> bool:
    """Allow ``torch.load(weights_only=True)`` to read mmengine's checkpoints.

    torch >= 2.6 rejects types in checkpoints of mmengine <= 0.10.7
    (mmengine#1655), so resuming, load_from and testing fail. The types of
    :mod:`.harmless` are added to torch's allow-list; all others are still
    rejected. Older versions cannot map one type to another, and do not use
    ``weights_only`` by default.
    """
    import torch
    from torch.torch_version import TorchVersion
    if find_spec('mmengine') is None or TorchVersion(
            torch.__version__) < '2.6':
        return False
    from .harmless import harmless_globals
    torch.serialization.add_safe_globals(
        [(kind, name) for name, kind in harmless_globals().items()])
    return True


def register_config_package() -> bool:
    """Allow configs to inherit from ``hrformer_mm::pose/...``.

    mmengine <= 0.10.7 has a fixed list of packages (mmengine#1410), and looks
    for an editable install (PEP 660) in site-packages, where it is not. If the
    list has a module of the package instead of the distribution, mmengine
    asks Python for its location. mmengine also uses the package as the scope
    of all inherited types. Our configs write their scope out, as their other
    types are those of the framework, so this is undone.
    """
    if find_spec('mmengine') is None:
        return False
    from mmengine.config import Config, utils
    utils.MODULE2PACKAGE.setdefault('hrformer_mm', 'hrformer_mm.version')
    find = Config._get_cfg_path
    if getattr(find, '__module__', '') != __name__:
        Config._get_cfg_path = staticmethod(without_our_scope(find))
    return True


def without_our_scope(find: Callable) -> Callable:
    """Wrap mmengine's function that finds the file and scope of a base."""

    def find_base(base: str, filename: str) -> tuple[str, str | None]:
        path, scope = find(base, filename)
        return path, None if scope == 'hrformer_mm' else scope

    return find_base


def prepare_processes() -> bool:
    """Make spawned processes import this package before a framework.

    A process that is spawned, or forked by a server, imports only the modules
    of its arguments. A worker of a data loader imports the framework of the
    dataset, which fails without the workarounds of this module. Python (3.10
    to 3.14) passes the dict changed here to each new process before the
    arguments, and unpickling the class below imports this module.
    """
    config = getattr(current_process(), '_config', None)
    if not isinstance(config, dict):
        return False
    config['hrformer_mm'] = ImportFirst
    return True


class ImportFirst:
    """Marker that makes a new process import this module."""


Action = Callable[[Any], None]  # takes a module


class AfterImport:
    """Finder that runs actions after a module has been imported.

    It finds no modules itself, but calls the other finders.
    """

    def __init__(self) -> None:
        self.actions: dict[str, list[Action]] = {}

    def add(self, name: str, action: Action):
        """Run an action on a module: now if it is imported, else later."""
        actions = self.actions.setdefault(name, [])
        if action in actions:
            return
        actions.append(action)
        if name in sys.modules:
            action(sys.modules[name])
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None,
                  target: Any = None) -> ModuleSpec | None:
        if name not in self.actions:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, 'find_spec', None)
            spec = find(name, path, target) if find and finder is not self \
                else None
            if spec is not None:
                break
        else:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType):
            execute(module)
            for action in self.actions[name]:
                action(module)

        loader.exec_module = exec_module
        return spec


after_import = AfterImport()


def open_text(file: Any, mode: str = 'r', *args: Any, **kwargs: Any) -> Any:
    """Open a file like the built-in ``open``, but text files in UTF-8.

    A byte order mark is skipped. Names that the locale cannot express are
    UTF-8, too.
    """
    if isinstance(file, (str, os.PathLike)):
        try:
            os.fsencode(file)
        except UnicodeEncodeError:
            file = os.fspath(file).encode('utf-8', 'surrogateescape')
    if 'b' not in mode and len(args) < 2:
        given = str(kwargs.get('encoding') or 'utf-8').lower()
        if given in ('utf-8', 'utf8'):
            is_read = not set(mode) & set('wax+')
            kwargs['encoding'] = 'utf-8-sig' if is_read else 'utf-8'
    return open(file, mode, *args, **kwargs)


def use_open_text(module: Any):
    module.open = open_text


# Modules that open text files in the encoding of the locale, or do not skip a
# byte order mark.
TEXT_MODULES = (
    'mmengine.config.config', 'mmengine.config.utils',
    'mmengine.fileio.backends.local_backend',
    'mmengine.hooks.checkpoint_hook', 'mmengine.hooks.logger_hook',
    'mmengine.runner.checkpoint', 'mmengine.visualization.vis_backend',
    'pycocotools.coco', 'xtcocotools.coco',
    'mmpose.datasets.datasets.body.mpii_dataset',
    'mmpose.datasets.datasets.body.mpii_trb_dataset',
    'mmpose.datasets.datasets.hand.interhand2d_double_dataset',
    'mmpose.datasets.datasets.hand3d.interhand_3d_dataset',
    'mmpretrain.datasets.coco_retrieval',
    'mmpretrain.evaluation.metrics.shape_bias_label',
    'mmpretrain.utils.analyze')  # yapf: disable


def read_text_in_utf8() -> bool:
    """Make the frameworks read and write text files in UTF-8.

    mmengine <= 0.10.7, mmpose <= 1.3.2, mmpretrain <= 1.2.0, pycocotools and
    xtcocotools use the encoding of the locale for some files, which may be
    ASCII or GBK, and fail on a byte order mark. Only ``open`` of the listed
    modules is replaced, not the built-in one.
    """
    for name in TEXT_MODULES:
        after_import.add(name, use_open_text)
    return True


def log_in_utf8() -> bool:
    """Make mmengine <= 0.10.7 write its logs in UTF-8.

    Its file handlers use the encoding of the locale. Nothing is changed if
    that is UTF-8 already.
    """
    encoding = locale.getpreferredencoding(False).lower().replace('-', '')
    if find_spec('mmengine') is None or encoding == 'utf8':
        return False
    from mmengine.logging.logger import MMLogger
    if hasattr(MMLogger.__init__, '__wrapped__'):
        return False
    original = MMLogger.__init__

    @wraps(original)
    def initialize(self: Any, *args: Any, **kwargs: Any):
        original(self, *args, **kwargs)
        for handler in self.handlers:
            stream = getattr(handler, 'stream', None)
            if isinstance(handler, FileHandler) and stream is not None:
                handler.encoding = 'utf-8'
                stream.reconfigure(encoding='utf-8')

    MMLogger.__init__ = initialize
    return True


def take_radius_as_number(module: Any):
    """Patch the visualizer of a module of mmpose to use scalar radii."""
    kind = module.OpencvBackendVisualizer
    original = kind.draw_circles

    @wraps(original)
    def draw_circles(self: Any, center: Any, radius: Any, *args: Any,
                     **kwargs: Any):
        if self.backend == 'opencv':
            import numpy as np
            radius = float(np.ravel(radius)[0])
        return original(self, center, radius, *args, **kwargs)

    kind.draw_circles = draw_circles


def draw_keypoints() -> bool:
    """Make MMPose's visualizers draw keypoints with numpy >= 2.4.

    MMPose <= 1.3.2 passes OpenCV a radius that is an array of one element,
    which numpy no longer converts to a number. The drawings are the same with
    older numpy.
    """
    after_import.add('mmpose.visualization.opencv_backend_visualizer',
                     take_radius_as_number)
    return True


def restore_numpy() -> bool:
    """Restore functions of numpy 1 in metrics and visualizers.

    MMPretrain <= 1.2.0 calls ``np.in1d`` in its retrieval metrics, MMPose
    <= 1.3.2 ``np.array(..., copy=False)`` in its visualizers. Only these
    modules see the changed numpy.
    """
    from .old_numpy import MODULES, use_old_numpy
    for name in MODULES:
        after_import.add(name, use_old_numpy)
    return True


def install():
    """Apply all workarounds of this module; safe to call again.

    If torch cannot be imported, no error is raised here, as check_env must
    run to report it.
    """
    with suppress(ImportError, OSError):
        provide_mmcv_ext()
        serve_xtcocotools()
        restore_find_loader()
        allow_harmless_types()
        register_config_package()
        read_text_in_utf8()
        log_in_utf8()
        draw_keypoints()
        restore_numpy()
        prepare_processes()
