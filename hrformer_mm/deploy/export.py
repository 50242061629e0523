# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Models as ONNX or ``torch.export`` files that give the same outputs.

A file is written only after it was read back, run, and compared with the model
in PyTorch.
"""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import (TYPE_CHECKING, Any, Callable, Dict, List, Optional,
                    Sequence, Tuple, cast)

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
META = 'hrformer_mm'  # where a file says what it holds
FUSED_OPSET = 23  # the first with an operator for attention
OPSETS = range(OLDEST_OPSET, FUSED_OPSET + 1)
# Images that are tried where sizes are open; their maps are not whole windows.
OPEN_SIZES = ((97, 131), (160, 224), (250, 190))
OPEN_EXAMPLE = (490, 554)  # of which no map is as large as another or 1
# Outputs that are decisions: two equal values may fall either way.
DECISIONS = dict(keypoints=0.1, labels=0.)  # what counts as another one


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may be from PyTorch's in float32."""
    values: float  # largest difference over largest value
    decisions: float  # share of keypoints or labels that are others


# Of noise, where many maxima are near another, float16 decides some anew.
TOLERANCES = {
    torch.float32: Tolerance(1e-4, 1e-2),
    torch.float16: Tolerance(2e-2, 0.2)
}


@dataclass
class Report:
    """What was written, and how it was checked."""
    path: Path
    nodes: int  # operators in the graph
    names: Sequence[str]  # of the outputs
    # Worst difference of each output, by the shape of the images.
    differences: Dict[Tuple[int, ...], Dict[str, float]] = field(
        default_factory=dict)


def input_shape(cfg: Config, model: nn.Module) -> Tuple[int, int]:
    """Height and width of the images that a config is for.

    Raises:
        ValueError: If neither its codec nor its name tells.
    """
    decoder = getattr(getattr(model, 'head', None), 'decoder', None)
    if decoder is not None:
        width, height = decoder.input_size
        return int(height), int(width)
    return zoo.input_size(cfg.filename)


def find_step(cfg: Config, name: str) -> dict:
    """The step of the test pipeline with that name, or nothing."""
    steps = cfg.test_dataloader.dataset.pipeline
    return next((s for s in steps if bare_name(s['type']) == name), {})


def describe(cfg: Config, model: nn.Module, meta: dict,
             shape: Optional[Tuple[int, int]],
             post: bool) -> Dict[str, Any]:
    """What a program needs to know to use the file, as JSON values.

    Args:
        cfg: Of the model.
        model: As the framework builds it.
        meta: Of the data it was trained on.
        shape: Height and width, unless they are open.
        post: Whether the graph decodes its maps.

    Returns:
        Among others ``fit``: the network sees the smallest part of its own
        shape that holds the box or image (``maximum``) or the largest inside
        of it (``minimum``), made larger by ``padding``.
    """
    task, normal = get_task(cfg).name, cast(Any, model.data_preprocessor)
    facts: Dict[str, Any] = dict(
        task=task,
        post=post,
        shape=shape,
        mean=normal.mean.flatten().tolist(),
        std=normal.std.flatten().tolist(),
        # Frameworks differ in the word for it.
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
    head: Any = model.decode_head if task == 'seg' else model.head
    count = head.num_classes
    facts['names'] = list(meta.get('classes') or map(str, range(count)))
    if task == 'cls':
        assert shape is not None  # only segmentation leaves sizes open
        edge = find_step(cfg, 'ResizeEdge').get('scale', shape[0])
        return dict(facts, padding=shape[0] / edge)
    if slides(model):
        windows: Any = model.test_cfg
        facts['slide'] = {k: list(windows[k]) for k in ('crop_size', 'stride')}
    return dict(facts, palette=meta.get('palette') or make_palette(count))


def check_before(out: Path, format: str, force: bool):
    """Tell what would fail after minutes.

    Raises:
        FileExistsError: For a file that is not to be replaced.
        ImportError: For packages of ONNX; gives the install line.
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


def load(cfg: Config, weights: str) -> Tuple[nn.Module, dict]:
    """A model as its framework builds it, and what its data is called."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
        return model, {**data_of(cfg), **load_weights(model, weights)}


def open_dimensions(task: str, dynamic: bool) -> Dict[int, Any]:
    """Dimensions of the images that a graph leaves open."""
    if not dynamic:
        return {}
    from torch.export import Dim
    found = {0: Dim('batch')}
    if task == 'seg':  # the coarsest of four maps has more than one pixel
        found.update({2: Dim('height', min=33), 3: Dim('width', min=33)})
    return found


def example_shape(shape: Tuple[int, int],
                  dimensions: Dict[int, Any]) -> Tuple[int, ...]:
    """Images to trace with, whose open dimensions have unlikely sizes."""
    batch = 2 if 0 in dimensions else 1
    return (batch, 3, *(OPEN_EXAMPLE if 2 in dimensions else shape))


def trace(network: nn.Module, shape: Tuple[int, ...],
          dimensions: Dict[int, Any]) -> ExportedProgram:
    """The graph of a network, with the given dimensions open.

    Args:
        network: Takes images [B, 3, h, w].
        shape: Of the images that it is traced with.
        dimensions: See :func:`open_dimensions`.

    Raises:
        ValueError: If the network fixes one of these.
    """
    image = torch.zeros(shape)
    try:
        # Without this option, a size of 1 is special.
        options: Any = torch.fx.experimental._config
        with torch.no_grad(), options.patch(backed_size_oblivious=True):
            return torch.export.export(
                network, (image, ),
                dynamic_shapes=(dimensions, ),
                strict=False,
                # Or it gives up on what it cannot prove of sizes.
                prefer_deferred_runtime_asserts_over_guards=True)
    except torch._dynamo.exc.UserError as error:
        names = ', '.join(d.__name__ for d in dimensions.values())
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f'the graph of this model cannot leave {names} open ({reason}); '
            'export without --dynamic for one size') from error


def write_onnx(program: ExportedProgram, path: Path,
               dimensions: Dict[int, Any], names: Sequence[str], opset: int,
               meta: dict) -> int:
    """Write an ONNX file; return the number of its operators."""
    axes = {i: dimension.__name__ for i, dimension in dimensions.items()}
    onnx: Any = torch.onnx.export(
        program, (),
        input_names=['image'],
        output_names=list(names),
        dynamic_shapes=(axes, ),  # names what is open already
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
    """Write a ``torch.export`` file; returns the number of its operators."""
    with open(path, 'wb') as file:  # a path would have to end in .pt2
        torch.export.save(program, file, extra_files={META: json.dumps(meta)})
    return sum(node.op == 'call_function' for node in program.graph.nodes)


def open_file(path: Path,
              format: str) -> Callable[[ndarray], Sequence[ndarray]]:
    """A file that was written here, as a function of the images."""
    if format == 'onnx':
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # casts of half precision on CPUs
        session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider'])
        return lambda image: session.run(None, dict(image=image))
    with open(path, 'rb') as file:
        module = torch.export.load(file).module()
    return lambda image: [y.numpy() for y in module(torch.from_numpy(image))]


def difference(name: str, found: ndarray, wanted: ndarray) -> float:
    """Of values: the largest, over the largest value that is wanted. Of
    decisions: the share that are others."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    apart = np.abs(found - wanted)
    if name in DECISIONS:
        return float((apart > DECISIONS[name]).mean())
    return float(apart.max() / np.abs(wanted).max())


def shapes_to_check(shape: Tuple[int, int], dimensions: Dict[int, Any],
                    thorough: bool) -> List[Tuple[int, ...]]:
    """Shapes of the images to compare with."""
    sizes = [shape, *OPEN_SIZES] if 2 in dimensions else [shape]
    shapes: List[Tuple[int, ...]] = [(1, 3, *size) for size in sizes]
    if thorough and 0 in dimensions:
        shapes += [(n, 3, *sizes[-1]) for n in (2, 3, 8)]
    return [*shapes] if thorough else shapes[:1]


def compare(run: Callable[[ndarray], Sequence[ndarray]], network: Network,
            shapes: Sequence[Tuple[int, ...]],
            tolerance: Tolerance) -> Dict[Tuple[int, ...], Dict[str, float]]:
    """Differences of all outputs on random images, by their shape.

    Args:
        run: The file.
        network: As the framework builds it.
        shapes: Of the images.
        tolerance: What is allowed.

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
            if not value <= limit:  # nor NaN
                raise ValueError(
                    f'nothing was written: {name} of images {list(shape)} '
                    f'differ from PyTorch by {value:.2g}, at most {limit:.2g} '
                    'is allowed')
    return result


def export(cfg: Config,
           weights: str,
           out: str,
           format: str = 'onnx',
           shape: Optional[Tuple[int, int]] = None,
           dynamic: bool = False,
           half: bool = False,
           post: bool = False,
           check: bool = False,
           opset: int = FUSED_OPSET,
           force: bool = False) -> Report:
    """Write a trained model as a file that others can run.

    Args:
        cfg: Config of the model.
        weights: Path of its checkpoint, of any layout.
        out: File to write.
        format: Of ``FORMATS``.
        shape: Height and width of the images; by default the config's.
        dynamic: Leave the batch open, and the size for segmentation.
        half: Compute in float16; images and outputs stay float32.
        post: Decode the maps inside the graph, see :mod:`.outputs`.
        check: Compare with PyTorch at more batches and sizes than one.
        opset: Version of ONNX's operators, 11 to 23; below 23 attention is
            several operators.
        force: Replace a file that is there.

    Raises:
        FileExistsError: If the file is there and ``force`` is not given.
        ImportError: If packages are missing.
        ValueError: If the file disagrees with PyTorch, which is then not
            written, or the model cannot be exported so.
    """
    cfg = name_types(cfg)
    file, task = Path(out), get_task(cfg).name
    check_before(file, format, force)
    model, meta = load(cfg, weights)
    shape = shape or input_shape(cfg, model)
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
