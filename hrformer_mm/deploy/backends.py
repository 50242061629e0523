# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Models of the frameworks whose network runs in another runtime.

Preparation of images, sliding windows, flips and decoding stay the
framework's: only backbone, neck and head are replaced.
"""
import os
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..tasks import get_task
from ..utils.cli import BACKENDS
from .runtimes import SUFFIXES, Session


def choose_backend(weights: str | os.PathLike,
                   backend: str = 'auto') -> tuple[str, str]:
    """Return the runtime for a file of weights, and the reason.

    Args:
        weights: Checkpoint, ``.onnx`` or ``.xml`` file.
        backend: One of ``BACKENDS``.

    Raises:
        ValueError: If the runtime cannot read the file.
    """
    if backend not in BACKENDS:
        raise ValueError(f'backend must be one of {list(BACKENDS)}, got '
                         f'{backend!r}')
    path = Path(weights)
    own = SUFFIXES.get(path.suffix)
    if backend == 'auto':
        if own is None:
            return 'torch', f'{path.name} is a checkpoint of PyTorch'
        if own == 'onnxruntime' and find_spec(own) is None and find_spec(
                'openvino') is not None:
            return 'openvino', 'onnxruntime is not installed'
        return own, f'{path.name} is a file for it'
    if own and backend not in (own, 'openvino'):
        raise ValueError(f'{backend} cannot read {path}, which is a file of '
                         f'{own}: leave out --backend')
    return backend, 'as requested'


def open_network(cfg: Config,
                 weights: str | os.PathLike,
                 backend: str = 'auto',
                 precision: str | None = None
                 ) -> tuple[Session | None, str]:
    """Open the network of a model in its runtime; export it if necessary.

    Args:
        cfg: Config of the model.
        weights: Checkpoint, or a file of ``tools/export.py``.
        backend: One of ``BACKENDS``.
        precision: ``fp32`` or ``bf16`` of OpenVINO; by default the file's.

    Returns:
        The network, or ``None`` for PyTorch, and a note for the user.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the runtime is missing.
        ValueError: If the file is of another model, or config and backend do
            not match.
    """
    name, reason = choose_backend(weights, backend)
    note = f'backend: {name} ({reason})'
    if precision not in (None, 'fp32', 'bf16'):
        raise ValueError(f"precision must be 'fp32' or 'bf16', got "
                         f'{precision!r}; int8 needs a file of '
                         'tools/export.py')
    if name == 'torch':
        if precision not in (None, 'fp32'):
            raise ValueError(f'precision={precision!r} is for the backend '
                             'openvino')
        return None, note
    if get_task(cfg).name == 'det':
        raise ValueError(
            'detectors are exported for images of one size, but this config '
            'has images of many: use --backend torch, or '
            'tools/onnx_predict.py for the file')
    if Path(weights).suffix in SUFFIXES:
        session = Session(weights, name, precision)
    else:
        session = export_and_open(cfg, weights, name, precision)
    check_session(session, cfg)
    return session, note


def export_and_open(cfg: Config, weights: str | os.PathLike, backend: str,
                    precision: str | None) -> Session:
    """Export a checkpoint to a temporary file and open it."""
    from .export import OPEN_SIZES, export  # rarely needed here
    format = 'onnx' if backend == 'onnxruntime' else 'openvino'
    print_log(f'exporting {weights} for {backend}; tools/export.py --dynamic '
              f'--format {format} writes a file to use again')
    cfg = deepcopy(cfg)
    if (cfg.model.get('test_cfg') or {}).get('mode') == 'slide':
        cfg.model.test_cfg.mode = 'whole'  # the framework has the windows
    with TemporaryDirectory() as folder:
        suffix = {v: k for k, v in SUFFIXES.items()}[backend]
        path = Path(folder, f'network{suffix}')
        shape = OPEN_SIZES[1] if get_task(cfg).name == 'seg' else None
        export(cfg, os.fspath(weights), str(path), format, shape, dynamic=True)
        return Session(path, backend, precision)


def check_session(session: Session, cfg: Config):
    """Raise ValueError if a file cannot replace the network of a config."""
    meta, task = session.meta, get_task(cfg).name
    if not meta:
        raise ValueError(f'{session.label} is not a file of tools/export.py')
    if meta['task'] != task:
        raise ValueError(f"{session.label} is a model for {meta['task']}, "
                         f'but the config is for {task}')
    if meta['post']:
        raise ValueError(f'{session.label} was exported with --post, for '
                         'tools/onnx_predict.py; export it without')


def dataset_meta(session: Session) -> dict[str, Any]:
    """Return the names and colours of classes that a file holds, if any."""
    names = session.meta['names']
    if session.meta['task'] == 'pose' or names == [
            str(i) for i in range(len(names))]:
        return {}
    palette = session.meta.get('palette')
    return dict(classes=names, **dict(palette=palette) if palette else {})
