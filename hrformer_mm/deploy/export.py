# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Export models to ONNX or ``torch.export`` files with equal outputs.

A file is written only after it was loaded, run, and compared with the model
in PyTorch.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    cast,
)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from numpy import ndarray
from torch import nn

from .. import zoo
from ..checkpoints.files import replacing
from ..checkpoints.loading import load_weights
from ..core.versions import can_export
from ..registry import install_line
from ..tasks import get_task
from ..utils.config import bare_name, name_types
from ..utils.dataset_leaves import data_of
from ..visualization.drawing import make_palette
from .onnx_modules import simplify
from .opsets import OLDEST_OPSET, WRITTEN_OPSET, lower
from .optimize import optimize
from .postprocess import Network, slides

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FORMATS = {'onnx': '.onnx', 'torch-export': '.pt2'}
META = 'hrformer_mm'  # metadata key of the description in a file
FUSED_OPSET = 23  # the first one with an operator for attention
OPSETS = range(OLDEST_OPSET, FUSED_OPSET + 1)
# Images to check open sizes with; their maps are not whole windows.
OPEN_SIZES = ((97, 131), (160, 224), (250, 190))
OPEN_EXAMPLE = (490, 554)  # sides of all its maps are distinct and above 1
# Outputs that are decisions: ties may be resolved either way.
DECISIONS = dict(keypoints=0.1, labels=0.)  # larger differences count


@dataclass(frozen=True)
class Tolerance:
    """Maximum difference to PyTorch's outputs in float32."""
    values: float  # largest difference / largest value
    decisions: float  # share of keypoints or labels that differ


# On noise, many values are close to the maximum: float16 decides differently.
TOLERANCES = {
    torch.float32: Tolerance(1e-4, 1e-2),
    torch.float16: Tolerance(2e-2, 0.2)
}


@dataclass
class Report:
    """Summary of the exported file and its verification."""
    path: Path
    nodes: int  # operators in the graph
    names: Sequence[str]  # names of the outputs
    # Worst difference of each output, by image shape.
    differences: dict[tuple[int, ...], dict[str, float]] = field(
        default_factory=dict)


def input_shape(cfg: Config, model: Any) -> tuple[int, int]:
    """Return height and width of the images that a config is for.

    Those of detectors are padded.

    Raises:
        ValueError: If neither its codec nor its file name has the size.
    """
    decoder = getattr(getattr(model, 'head', None), 'decoder', None)
    if decoder is not None:
        width, height = decoder.input_size
        return int(height), int(width)
    height, width = zoo.input_size(cfg.filename)
    step = divisor(model)
    return -(-height // step) * step, -(-width // step) * step


def divisor(model: Any) -> int:
    """Return the number that the sides of a detector's images divide by."""
    return getattr(model.data_preprocessor, 'pad_size_divisor', 1)


def find_step(cfg: Config, name: str) -> dict:
    """Return the step of the test pipeline with a name; empty if absent."""
    steps = cfg.test_dataloader.dataset.pipeline
    return next((s for s in steps if bare_name(s['type']) == name), {})


def describe(cfg: Config, model: nn.Module, meta: dict,
             shape: tuple[int, int] | None,
             post: bool) -> dict[str, Any]:
    """Return the metadata that a user of the file needs, as JSON values.

    Args:
        cfg: Config of the model.
        model: Model as built by its framework.
        meta: Metainfo of the training dataset.
        shape: Height and width, unless they are open.
        post: Whether the graph includes postprocessing.

    Returns:
        A dict; in it, ``fit`` says how the box or image is fitted to the
        input: the network sees the smallest area of its aspect ratio that
        contains it (``maximum``) or the largest area inside it
        (``minimum``), scaled by ``padding``. ``align`` is the share of the
        rest that is left of and above the image (default: 0.5).
    """
    task, normal = get_task(cfg).name, cast(Any, model.data_preprocessor)
    facts: dict[str, Any] = dict(
        task=task,
        post=post,
        shape=shape,
        mean=normal.mean.flatten().tolist(),
        std=normal.std.flatten().tolist(),
        # The attribute differs between frameworks.
        rgb=any(
            getattr(normal, word, False) for word in
            ('_channel_conversion', 'channel_conversion', 'to_rgb')),
        fit='minimum' if task == 'cls' else 'maximum',
        padding=1,
        udp=False)
    if task == 'pose':
        return dict(
            facts,
            names=[name for _, name in sorted(
                meta['keypoint_id2name'].items())],
            links=meta['skeleton_links'],
            padding=find_step(cfg, 'GetBBoxCenterScale').get('padding', 1.25),
            udp=find_step(cfg, 'TopdownAffine').get('use_udp', False))
    names = dict(seg='decode_head', det='bbox_head')
    head: Any = getattr(model, names.get(task, 'head'))
    count = head.num_classes
    facts['names'] = list(meta.get('classes') or map(str, range(count)))
    if task == 'cls':
        assert shape is not None  # only segmentation leaves sizes open
        edge = find_step(cfg, 'ResizeEdge').get('scale', shape[0])
        return dict(facts, padding=shape[0] / edge)
    if task == 'det':  # MMDetection pads at the right and below with zeros
        return dict(
            facts, align=0, border=facts['mean'][::-1 if facts['rgb'] else 1],
            score_thr=head.test_cfg.score_thr,
            iou_thr=head.test_cfg.nms.get('iou_threshold', .5))
    if slides(model):
        windows: Any = model.test_cfg
        facts['slide'] = {k: list(windows[k]) for k in ('crop_size', 'stride')}
    return dict(facts, palette=meta.get('palette') or make_palette(count))


def check_before(out: Path, format: str, force: bool):
    """Check the output file and the packages before minutes of work.

    Raises:
        FileExistsError: If the file exists and must not be replaced.
        ImportError: If packages are missing; with the install command.
    """
    if out.exists() and not force:
        raise FileExistsError(f'{out} is already there; --force replaces it')
    if not can_export():
        raise ImportError(f'torch {torch.__version__} is too old to export '
                          'these models: pip install --upgrade torch '
                          'torchvision')
    missing = [name for name in ('onnx', 'onnxruntime', 'onnxscript')
               if format == 'onnx' and find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX needs {', '.join(missing)}: "
                          f"{install_line('export')}")


def load(cfg: Config, weights: str) -> tuple[nn.Module, dict]:
    """Build a model with its weights; return it and its dataset's metainfo."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
        return model, {**data_of(cfg), **load_weights(model, weights)}


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


def open_file(path: Path,
              format: str) -> Callable[[ndarray], Sequence[ndarray]]:
    """Load an exported file as a function of the images."""
    if format == 'onnx':
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # no warnings on float16 casts
        session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider'])
        return lambda image: session.run(None, dict(image=image))
    with open(path, 'rb') as file:
        module = torch.export.load(file).module()
    return lambda image: [y.numpy() for y in module(torch.from_numpy(image))]


def difference(name: str, found: ndarray, wanted: ndarray) -> float:
    """Compute the difference between an output and its reference.

    For values: the largest difference, relative to the largest reference
    value. For decisions: the share that differs.
    """
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    apart = np.abs(found - wanted)
    if name in DECISIONS:
        return float((apart > DECISIONS[name]).mean())
    return float(apart.max() / np.abs(wanted).max())


def shapes_to_check(shape: tuple[int, int], dimensions: dict[int, Any],
                    thorough: bool) -> list[tuple[int, ...]]:
    """List the shapes of the images to compare with."""
    sizes = [shape, *OPEN_SIZES] if 2 in dimensions else [shape]
    shapes: list[tuple[int, ...]] = [(1, 3, *size) for size in sizes]
    if thorough and 0 in dimensions:
        shapes += [(n, 3, *sizes[-1]) for n in (2, 3, 8)]
    return [*shapes] if thorough else shapes[:1]


def compare(run: Callable[[ndarray], Sequence[ndarray]], network: Network,
            shapes: Sequence[tuple[int, ...]],
            tolerance: Tolerance) -> dict[tuple[int, ...], dict[str, float]]:
    """Compare all outputs on random images; return differences by shape.

    Args:
        run: Exported file as a function.
        network: Network as built by its framework.
        shapes: Shapes of the images.
        tolerance: Maximum differences.

    Raises:
        ValueError: If an output differs more.
    """
    random, result = torch.Generator().manual_seed(0), {}
    for shape in shapes:
        image = torch.randn(shape, generator=random)
        with torch.no_grad():
            wanted = network(image)
        result[shape] = {
            name: difference(name, y, want.numpy())
            for name, y, want in zip(network.names, run(image.numpy()), wanted)
        }
        for name, value in result[shape].items():
            limit = (
                tolerance.decisions
                if name in DECISIONS else tolerance.values)
            if not value <= limit:  # also true for NaN
                raise ValueError(
                    f'nothing was written: {name} of images {list(shape)} '
                    f'differ from PyTorch by {value:.2g}, at most {limit:.2g} '
                    'is allowed')
    return result


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
           force: bool = False) -> Report:
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

    Raises:
        FileExistsError: If the file exists and ``force`` is not set.
        ImportError: If packages are missing.
        ValueError: If the outputs differ from PyTorch, or the model cannot
            be exported with these options; no file is written.
    """
    cfg = name_types(cfg)
    file, task = Path(out), get_task(cfg).name
    check_before(file, format, force)
    model, meta = load(cfg, weights)
    shape = shape or input_shape(cfg, model)
    if any(n % divisor(model) for n in shape):
        raise ValueError(f'the sides of images must be multiples of '
                         f'{divisor(model)} for this model, got {shape}')
    if dynamic and slides(model):
        raise ValueError(
            "model.test_cfg.mode is 'slide', whose windows need a fixed size "
            'of the images: export without --dynamic, or with --cfg-options '
            'model.test_cfg.mode=whole')
    dtype = torch.float16 if half else torch.float32
    reference = Network(model, task, post)
    fused = format != 'onnx' or opset >= FUSED_OPSET
    network = Network(simplify(optimize(model, dtype), fused), task, post)
    dimensions = open_dimensions(task, dynamic)
    program = trace(network.eval(), example_shape(shape, dimensions),
                    dimensions)
    meta = describe(cfg, model, meta, None if 2 in dimensions else shape, post)
    with replacing(file) as temporary:
        if format == 'onnx':
            nodes = write_onnx(program, temporary, dimensions,
                               network.names, opset, meta)
        else:
            nodes = write_program(program, temporary, meta)
        differences = compare(
            open_file(temporary, format), reference,
            shapes_to_check(shape, dimensions, check), TOLERANCES[dtype])
    return Report(file, nodes, network.names, differences)
