# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Export models to ONNX, OpenVINO or ``torch.export`` with equal outputs.

A file is written only after it was loaded, run, and compared with the model
in PyTorch.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from numpy import ndarray
from torch import nn

from ..checkpoints.files import replacing
from ..checkpoints.loading import load_weights
from ..core.versions import can_export
from ..tasks import get_task
from ..utils.config import name_types
from ..utils.dataset_leaves import metainfo_of
from .comparison import TOLERANCES, compare, noise
from .metadata import describe, divisor, input_shape
from .onnx_modules import simplify
from .opsets import OLDEST_OPSET, WRITTEN_OPSET, lower
from .optimize import optimize
from .postprocess import Network, slides
from .quantize import Calibration
from .runtimes import META, PRECISIONS, SUFFIXES, Session, check_packages

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FORMATS = {'onnx': '.onnx', 'openvino': '.xml', 'torch-export': '.pt2'}
FUSED_OPSET = 23  # the first one with an operator for attention
OPSETS = range(OLDEST_OPSET, FUSED_OPSET + 1)
# Images to check open sizes with; their maps are not whole windows.
OPEN_SIZES = ((97, 131), (160, 224), (250, 190))
OPEN_EXAMPLE = (490, 554)  # sides of all its maps are distinct and above 1
CALIBRATED = 4  # images of the calibration to compare int8 with


@dataclass
class Report:
    """Summary of the exported file and its verification."""
    path: Path
    nodes: int  # operators in the graph
    names: Sequence[str]  # names of the outputs
    # Worst difference of each output, by image shape.
    differences: dict[tuple[int, ...], dict[str, float]] = field(
        default_factory=dict)
    notes: Sequence[str] = ()  # accuracy of int8


def check_before(file: Path, format: str, force: bool, weights: str):
    """Check the output file and the packages before minutes of work.

    Raises:
        FileExistsError: If the file exists and must not be replaced.
        ImportError: If packages are missing; with the install command.
        ValueError: If the file has a wrong suffix or is the checkpoint.
    """
    files = [file]
    if format == 'openvino':
        if file.suffix != '.xml':
            raise ValueError(f'files of OpenVINO end in .xml, got {file}')
        files.append(file.with_suffix('.bin'))  # the weights
    for path in files:
        if path.exists() and Path(weights).exists() and path.samefile(
                weights):
            raise ValueError(f'{path} is the checkpoint, which the output '
                             'would replace: choose another --out')
        if path.exists() and not force:
            raise FileExistsError(f'{path} is already there; --force replaces '
                                  'it')
    if not can_export():
        raise ImportError(f'torch {torch.__version__} is too old to export '
                          'these models: pip install --upgrade torch '
                          'torchvision')
    if format == 'onnx':
        check_packages('onnx', 'onnxscript', 'onnxruntime')
    if format == 'openvino':
        check_packages('onnx', 'onnxscript', 'openvino')


def check_precision(format: str, half: bool, post: bool,
                    precision: str | None, calibrate: Any) -> str:
    """Return the precision of a file.

    Raises:
        ImportError: If NNCF is missing for int8.
        ValueError: If the options contradict each other.
    """
    if precision not in (None, *PRECISIONS):
        raise ValueError(f'precision must be one of {PRECISIONS}, got '
                         f'{precision!r}')
    if precision and format != 'openvino':
        raise ValueError('--precision is for --format openvino; --half '
                         'computes in float16 in the other formats')
    if half and format == 'openvino':
        raise ValueError('--half is not for --format openvino: use '
                         '--precision bf16')
    if (precision == 'int8') != (calibrate is not None):
        raise ValueError('--precision int8 and --calibrate need each other: '
                         'int8 is calibrated with validation images of a '
                         'config or a folder')
    if precision == 'int8' and post:
        raise ValueError('--post is not for --precision int8, which would '
                         'round its coordinates: leave it out and predict '
                         'with hrformer-mm predict')
    if precision == 'int8':
        check_packages('nncf')
    return precision or ('fp16' if half else 'fp32')


def check_shape(model: Any, shape: tuple[int, int], dynamic: bool):
    """Raise ValueError if a model cannot be exported for these sizes."""
    if any(n % divisor(model) for n in shape):
        raise ValueError(f'the sides of images must be multiples of '
                         f'{divisor(model)} for this model, got {shape}')
    if dynamic and slides(model):
        raise ValueError(
            "model.test_cfg.mode is 'slide', whose windows need a fixed size "
            'of the images: export without --dynamic, or with --cfg-options '
            'model.test_cfg.mode=whole')


def load(cfg: Config, weights: str) -> tuple[nn.Module, dict]:
    """Build a model with its weights; return it and its dataset's metainfo."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
        return model, {**metainfo_of(cfg), **load_weights(model, weights)}


def open_dimensions(task: str, dynamic: bool) -> dict[int, Any]:
    """Return the dimensions of the images that a graph leaves open."""
    if not dynamic:
        return {}
    from torch.export import Dim
    found = {0: Dim('batch')}
    if task == 'seg':  # the coarsest of four maps has more than one pixel
        found.update({2: Dim('height', min=33), 3: Dim('width', min=33)})
    return found


def example_shape(shape: tuple[int, int],
                  dimensions: dict[int, Any]) -> tuple[int, ...]:
    """Return a shape to trace with, whose open dimensions are unusual."""
    batch = 2 if 0 in dimensions else 1
    return (batch, 3, *(OPEN_EXAMPLE if 2 in dimensions else shape))


def trace(network: nn.Module, shape: tuple[int, ...],
          dimensions: dict[int, Any]) -> ExportedProgram:
    """Trace the graph of a network, with the given dimensions open.

    Args:
        network: Takes images [B, 3, h, w].
        shape: Shape of the images to trace with.
        dimensions: See :func:`open_dimensions`.

    Raises:
        ValueError: If the network needs a fixed size in one of these.
    """
    image = torch.zeros(shape)
    try:
        # Without this option, a size of 1 is specialized.
        options: Any = torch.fx.experimental._config
        with torch.no_grad(), options.patch(backed_size_oblivious=True):
            return torch.export.export(
                network, (image, ),
                dynamic_shapes=(dimensions, ),
                strict=False,
                # Otherwise tracing fails if it cannot prove a guard on sizes.
                prefer_deferred_runtime_asserts_over_guards=True)
    except torch._dynamo.exc.UserError as error:
        names = ', '.join(d.__name__ for d in dimensions.values())
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f'the graph of this model cannot leave {names} open ({reason}); '
            'export without --dynamic for one size') from error


def write_onnx(program: ExportedProgram, path: Path,
               dimensions: dict[int, Any], names: Sequence[str], opset: int,
               meta: dict) -> int:
    """Write an ONNX file; return the number of its operators."""
    axes = {i: dimension.__name__ for i, dimension in dimensions.items()}
    onnx: Any = torch.onnx.export(
        program, (),
        input_names=['image'],
        output_names=list(names),
        dynamic_shapes=(axes, ),  # names the open dimensions
        opset_version=max(opset, WRITTEN_OPSET),
        dynamo=True,
        verbose=False)
    onnx.model.metadata_props[META] = json.dumps(meta)
    if opset >= WRITTEN_OPSET:
        onnx.save(str(path))
        return len(onnx.model.graph)
    model = lower(onnx.model_proto, opset)
    path.write_bytes(model.SerializeToString())
    return len(model.graph.node)


def write_program(program: ExportedProgram, path: Path, meta: dict) -> int:
    """Write a ``torch.export`` file; return the number of its operators."""
    with open(path, 'wb') as file:  # a path would have to end in .pt2
        torch.export.save(program, file, extra_files={META: json.dumps(meta)})
    return sum(node.op == 'call_function' for node in program.graph.nodes)


def write_openvino(program: ExportedProgram, path: Path,
                   dimensions: dict[int, Any], names: Sequence[str],
                   opset: int, meta: dict, quantize: Callable | None) -> int:
    """Write a file of OpenVINO; return the number of its operators.

    The weights are in another file beside it, which ends in ``.bin``.
    """
    import openvino
    with TemporaryDirectory() as folder:
        onnx = Path(folder, 'network.onnx')
        write_onnx(program, onnx, dimensions, names, opset, meta)
        model = openvino.Core().read_model(onnx)
        model = quantize(model) if quantize else model
    model.set_rt_info(json.dumps(meta), [META])
    openvino.save_model(model, path, compress_to_fp16=False)
    return len(model.get_ops())


@contextmanager
def replacing_pair(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` on success.

    The weights of a file of OpenVINO are moved before it, and an older file is
    removed first: an interrupted write leaves no file with other weights.
    """
    with replacing(path) as temporary:
        weights = temporary.with_suffix('.bin')
        try:
            yield temporary
            if weights.exists():
                path.unlink(missing_ok=True)
                weights.replace(path.with_suffix('.bin'))
        finally:
            weights.unlink(missing_ok=True)


def open_file(path: Path,
              format: str) -> Callable[[ndarray], Sequence[ndarray]]:
    """Load an exported file as a function of the images."""
    if format != 'torch-export':
        return Session(path, SUFFIXES[FORMATS[format]])
    with open(path, 'rb') as file:
        module = torch.export.load(file).module()
    return lambda image: [y.numpy() for y in module(torch.from_numpy(image))]


def shapes_to_check(shape: tuple[int, int], dimensions: dict[int, Any],
                    thorough: bool) -> list[tuple[int, ...]]:
    """List the shapes of the images to compare with."""
    sizes = [shape, *OPEN_SIZES] if 2 in dimensions else [shape]
    shapes: list[tuple[int, ...]] = [(1, 3, *size) for size in sizes]
    if thorough and 0 in dimensions:
        shapes += [(n, 3, *sizes[-1]) for n in (2, 3, 8)]
    return [*shapes] if thorough else shapes[:1]


def export(cfg: Config,
           weights: str,
           out: str,
           format: str = 'onnx',
           shape: tuple[int, int] | None = None,
           dynamic: bool = False,
           half: bool = False,
           post: bool = False,
           check: bool = False,
           opset: int = FUSED_OPSET,
           force: bool = False,
           precision: str | None = None,
           calibrate: Config | str | None = None,
           samples: int = 300,
           max_drop: float = 0.5) -> Report:
    """Export a trained model to a file for other runtimes.

    Args:
        cfg: Config of the model.
        weights: Path of the checkpoint, in any layout.
        out: File to write.
        format: File format, one of ``FORMATS``.
        shape: Height and width of the images; by default the config's.
        dynamic: Leave the batch open, and the size for segmentation.
        half: Compute in float16; images and outputs stay float32.
        post: Include postprocessing in the graph, see :mod:`.postprocess`.
        check: Compare with PyTorch at several batches and sizes.
        opset: ONNX opset, 11 to 23; below 23 attention is several
            operators.
        force: Replace an existing file.
        precision: ``fp32``, ``bf16`` or ``int8`` for OpenVINO.
        calibrate: Config whose validation data int8 is calibrated and
            evaluated with, or a folder of images.
        samples: Number of images of the calibration.
        max_drop: Maximum loss of the metric by int8, in points of 100.

    Raises:
        FileExistsError: If the file exists and ``force`` is not set.
        ImportError: If packages are missing.
        ValueError: If the outputs differ from PyTorch, int8 loses too much,
            or the model cannot be exported with these options; no file is
            written.
    """
    cfg = name_types(cfg)
    file, task = Path(out), get_task(cfg).name
    check_before(file, format, force, weights)
    precision = check_precision(format, half, post, precision, calibrate)
    model, meta = load(cfg, weights)
    shape = shape or input_shape(cfg, model)
    check_shape(model, shape, dynamic)
    reference = Network(model, task, post)
    dtype = torch.float16 if half else torch.float32
    # OpenVINO would decompose the operator, with checks for NaN.
    fused = format == 'torch-export' or (
        format == 'onnx' and opset >= FUSED_OPSET)
    network = Network(simplify(optimize(model, dtype), fused), task, post)
    dimensions = open_dimensions(task, dynamic)
    images: Iterable[ndarray] = noise(
        shapes_to_check(shape, dimensions, check))
    calibration = None
    if calibrate is not None:
        calibration = Calibration.find(cfg, model, calibrate, samples,
                                       max_drop)
        images = calibration.images[:CALIBRATED]
    program = trace(network.eval(), example_shape(shape, dimensions),
                    dimensions)
    meta = describe(cfg, model, meta, None if 2 in dimensions else shape, post)
    meta['precision'] = precision
    with replacing_pair(file) as temporary:
        if format == 'torch-export':
            nodes = write_program(program, temporary, meta)
        elif format == 'openvino':
            nodes = write_openvino(program, temporary, dimensions,
                                   network.names, opset, meta, calibration)
        else:
            nodes = write_onnx(program, temporary, dimensions,
                               network.names, opset, meta)
        differences = compare(
            open_file(temporary, format), reference, images,
            TOLERANCES[precision])
    return Report(file, nodes, network.names, differences,
                  calibration.notes if calibration else ())
