# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Run exported files in onnxruntime and OpenVINO, which are optional.

Both are imported when a file is opened, and not before.
"""
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.utils import digit_version
from numpy import ndarray
from torch import Tensor, nn

from ..registry import install_line

META = 'hrformer_mm'  # metadata key of the description in a file
SUFFIXES = {'.onnx': 'onnxruntime', '.xml': 'openvino'}
# The extra with a package, and the oldest version of it.
PACKAGES = dict(
    onnx=('export', '1.18'),
    onnxruntime=('export', '1.23'),
    onnxscript=('export', '0.5'),
    openvino=('openvino', '2026.4'),
    nncf=('openvino', '3.4'))
PRECISIONS = ('fp32', 'bf16', 'int8')
HINT = 'INFERENCE_PRECISION_HINT'
SEEN = 3  # batches of a shape before OpenVINO gets a network for it
KEPT = 8  # networks
SMALL = 96  # pixels, see Specialized


def check_packages(*names: str):
    """Raise ImportError, with the install command, for missing packages.

    Packages that are too old count as missing.
    """
    for name in names:
        extra, oldest = PACKAGES[name]
        line = install_line(extra)
        if find_spec(name) is None:
            raise ImportError(f'{name} is not installed: {line}')
        found = version(name)
        if digit_version(found) < digit_version(oldest):
            raise ImportError(f'{name} {found} is too old, version {oldest} '
                              f'or newer is needed: {line}')


@contextmanager
def named_faults(path: Any, runtime: str):
    """Report errors of a runtime about a file in one line.

    Raises:
        ValueError: In place of the classes of the runtimes.
    """
    try:
        yield
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ValueError(f'{path} cannot be read by {runtime}, it is damaged '
                         f'or of another format ({lines[-1]})') from error


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this CPU."""
    import openvino
    return 'BF16' in openvino.Core().get_property(
        'CPU', 'OPTIMIZATION_CAPABILITIES')


@lru_cache
def precision_hint(precision: str) -> str:
    """Return OpenVINO's name of the precision to compute floats in.

    A notice is logged once if the CPU has no instructions for it.
    """
    if precision == 'fp32':  # the default is bf16 where CPUs have it
        return 'f32'
    if has_bf16():
        return 'bf16'
    rest = ' what is not in int8' if precision == 'int8' else ''
    print_log(f'this CPU has no bf16 instructions: OpenVINO computes{rest} in '
              'float32', level=logging.WARNING)
    return 'f32'


class Specialized:
    """A network of OpenVINO that is compiled for the shapes it meets.

    Compiled for open dimensions, it is slower than for a shape of its own,
    in int8 by far. The first shape and those that return get their own. So
    do small images in int8: with open dimensions OpenVINO 2026.4 crashes on
    them where the CPU has AMX (its issue 37577). The batch is then split into
    equal parts that run side by side, so that threads do not wait for each
    other after every operator.

    Args:
        model: Model of OpenVINO.
        options: Properties to compile it with.
        threads: Largest number of parts.
    """

    def __init__(self, model: Any, options: dict[str, Any], threads: int):
        self.model, self.options, self.threads = model, options, threads
        self.is_int8 = any(
            op.get_type_name() == 'FakeQuantize' for op in model.get_ops())
        self.seen: Counter[tuple[int, ...]] = Counter()
        # For each shape, a request per part of the batch.
        self.networks: dict[tuple[int, ...] | None, Sequence[Any]] = {}
        if not model.is_dynamic():
            self.networks[None] = self.compile(model, 1)

    def compile(self, model: Any, parts: int) -> Sequence[Any]:
        """Return the requests that compute the parts of a batch."""
        import openvino
        compiled = openvino.Core().compile_model(
            model, 'CPU', dict(self.options, NUM_STREAMS=parts))
        return [compiled.create_infer_request() for _ in range(parts)]

    def choose(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the shape to compile for, ``None`` for all of them."""
        if not self.model.is_dynamic():
            return None
        self.seen[shape] += 1
        returns = len(self.seen) == 1 or self.seen[shape] > SEEN
        if shape in self.networks or returns and len(self.networks) < KEPT:
            return shape
        return shape if self.is_int8 and min(shape[2:]) < SMALL else None

    def add(self, shape: tuple[int, ...] | None):
        """Compile for a shape."""
        while len(self.networks) >= KEPT:
            self.networks.pop(next(iter(self.networks)))
        model, parts = self.model, 1
        if shape:
            model, (batch, *image) = model.clone(), shape
            if model.inputs[0].partial_shape[0].is_dynamic:
                parts = max(n for n in range(1, min(batch, self.threads) + 1)
                            if batch % n == 0)
            model.reshape([batch // parts, *image])
        self.networks[shape] = self.compile(model, parts)

    def __call__(self, images: ndarray) -> list[ndarray]:
        """Compute the outputs for images [B, 3, h, w]."""
        shape = self.choose(images.shape)
        if shape not in self.networks:
            self.add(shape)
        requests = self.networks[shape]
        for request, part in zip(requests, np.split(images, len(requests))):
            request.start_async([part])
        for request in requests:
            request.wait()
        outputs = [[y.data for y in r.output_tensors] for r in requests]
        return [np.concatenate(parts) for parts in zip(*outputs)]  # copies


class Session:
    """An exported network in its runtime, as a function of images.

    Args:
        source: File, or a model of OpenVINO.
        backend: ``onnxruntime`` or ``openvino``, which reads ONNX, too.
        precision: Precision of OpenVINO, ``fp32`` or ``bf16``; by default
            that of the file.
        threads: Number of threads; by default the runtime's choice.

    Attributes:
        meta: Description of the network, see
            :func:`hrformer_mm.deploy.metadata.describe`.
        names: Names of the outputs.
        shape: Shape of the images, ``None`` where any size is taken.

    Raises:
        ImportError: If the runtime is missing or too old.
        FileNotFoundError: If the file or its weights are missing.
        ValueError: If the file is damaged.
    """
    meta: dict[str, Any]
    names: Sequence[str]
    shape: tuple[int | None, ...]
    run: Callable[[ndarray], Sequence[ndarray]]

    def __init__(self,
                 source: Any,
                 backend: str,
                 precision: str | None = None,
                 threads: int | None = None):
        is_path = isinstance(source, (str, Path))
        self.source = source
        self.label = str(source) if is_path else 'the network'
        if is_path and not Path(source).is_file():
            raise FileNotFoundError(f'there is no file {source}')
        check_packages(backend)
        if backend == 'onnxruntime':
            if precision not in (None, 'fp32'):
                raise ValueError(f'precision={precision!r} is for the backend '
                                 f'openvino, which reads {self.label}, too')
            self.open_onnxruntime(threads)
        else:
            self.open_openvino(precision, threads)

    def open_onnxruntime(self, threads: int | None):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # no warnings on float16 casts
        options.intra_op_num_threads = threads or 0
        with named_faults(self.label, 'onnxruntime'):
            session = onnxruntime.InferenceSession(
                str(self.source), options, providers=['CPUExecutionProvider'])
        image, = session.get_inputs()
        self.shape = tuple(
            n if isinstance(n, int) else None for n in image.shape)
        self.names = [y.name for y in session.get_outputs()]
        found = session.get_modelmeta().custom_metadata_map
        self.meta = json.loads(found.get(META, '{}'))
        self.run = lambda x: session.run(None, {image.name: x})

    def open_openvino(self, precision: str | None, threads: int | None):
        import openvino
        core, model = openvino.Core(), self.source
        if isinstance(model, (str, Path)):
            weights = Path(model).with_suffix('.bin')
            if Path(model).suffix == '.xml' and not weights.is_file():
                raise FileNotFoundError(
                    f'the weights of {model} are missing: {weights}')
            with named_faults(model, 'OpenVINO'):
                model = core.read_model(model)
        places = [[META], ['framework', META]]  # the latter is that of ONNX
        found = next((p for p in places if model.has_rt_info(p)), None)
        self.meta = json.loads(model.get_rt_info(found).value) if found else {}
        precision = precision or self.meta.get('precision', 'fp32')
        options: dict[str, Any] = {HINT: precision_hint(precision)}
        if threads:
            options['INFERENCE_NUM_THREADS'] = threads
        with named_faults(self.label, 'OpenVINO'):
            self.run = Specialized(model, options,
                                   threads or torch.get_num_threads())
        self.shape = tuple(None if n.is_dynamic else n.get_length()
                           for n in model.inputs[0].partial_shape)
        self.names = [y.any_name for y in model.outputs]

    def __call__(self, images: ndarray) -> list[ndarray]:
        """Compute the outputs for images [B, 3, h, w].

        A file for one image runs them one by one.

        Raises:
            ValueError: If the file is for another size.
        """
        sizes = zip(images.shape[1:], self.shape[1:])
        if any(own not in (None, n) for n, own in sizes):
            raise ValueError(
                f'{self.label} takes images of {list(self.shape[2:])} '
                f'(height, width), got {list(images.shape[2:])}: export it '
                'with --dynamic for other sizes (segmentation), or with '
                'another --shape')
        images = np.ascontiguousarray(images)
        if self.shape[0] in (None, len(images)):
            return list(self.run(images))
        each = [self.run(images[i:i + 1]) for i in range(len(images))]
        return [np.concatenate(outputs) for outputs in zip(*each)]


class FileNetwork(nn.Module):
    """Take the place of a backbone; return the outputs of the head.

    Args:
        session: Exported network.
    """

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.session(images.detach().cpu().numpy())
        return tuple(torch.from_numpy(y).to(images.device) for y in found)


def plug_in(model: Any, session: Session):
    """Replace the network of a model, in place, by an exported one.

    Args:
        model: Model of MMPose, MMSegmentation or MMPretrain, or wrapped.
        session: Network to use, see :func:`.backends.open_network`.

    Raises:
        ValueError: If it has another number of outputs than the model.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    head = getattr(model, 'decode_head', None) or model.head
    count = getattr(head, 'num_classes', None) or head.out_channels
    if len(session.meta['names']) != count:
        raise ValueError(
            f"{session.label} is of another config: it predicts "
            f"{len(session.meta['names'])} classes or keypoints, but the "
            f'model has {count}')
    model.backbone, model.neck = FileNetwork(session), None
    head.forward = lambda maps: maps[-1]
    if 'slide' in session.meta:  # the graph contains the windows
        model.test_cfg.mode = 'whole'
