# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Networks and cases of the benchmark."""
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from hrformer_mm.core import ARCHS
from hrformer_mm.deploy import optimize
from hrformer_mm.deploy.onnx_modules import simplify
from hrformer_mm.deploy.runtimes import Session, check_packages
from hrformer_mm.models.backbones import HRFormer
from hrformer_mm.zoo.benchmark_table import case_name

DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
MODES = ('forward', 'train')


@dataclass(frozen=True)
class Case:
    """A setting to measure.

    Attributes:
        arch: Size of HRFormer.
        size: Height and width of the images.
        batch: Batch size.
        mode: ``'forward'`` is inference; ``'train'`` a forward and a backward
            pass with all gradients, without the optimizer.
        dtype: ``'fp32'``, or ``'bf16'`` or ``'fp16'`` under autocast.
        window: Window size of attention.
        threads: Number of threads on CPUs; by default that of the process.
        heatmaps: Whether a head of pose estimation follows: a 1x1 convolution
            of the map of highest resolution, the only one then.
    """
    arch: str
    size: tuple[int, int]
    batch: int
    mode: str
    dtype: str = 'fp32'
    window: int = 7
    threads: int | None = None
    heatmaps: bool = False

    def __str__(self) -> str:
        return case_name(vars(self))


def mmpose_extra(arch: str,
                 window: int = 7,
                 rel_pos_bias: bool = True,
                 multiscale_output: bool = True) -> dict:
    """Return the ``extra`` of MMPose's HRFormer, with four outputs or one."""
    size = ARCHS[arch]

    def stage(branches: int) -> dict:
        return dict(
            num_modules=size.modules[branches - 2],
            num_branches=branches,
            block='HRFORMERBLOCK',
            num_blocks=(size.blocks, ) * branches,
            num_channels=size.channels[:branches],
            num_heads=size.heads[:branches],
            mlp_ratios=(size.mlp_ratio, ) * branches,
            window_sizes=(window, ) * branches)

    return dict(
        drop_path_rate=0.,
        with_rpe=rel_pos_bias,
        stage1=dict(
            num_modules=1,
            num_branches=1,
            block='BOTTLENECK',
            num_blocks=(2, ),
            num_channels=(64, )),
        stage2=stage(2),
        stage3=stage(3),
        stage4=dict(stage(4), multiscale_output=multiscale_output))


class PoseNetwork(nn.Module):
    """A backbone with the 1x1 convolution of heatmap heads."""

    def __init__(self, backbone: nn.Module, channels: int):
        super().__init__()
        self.backbone = backbone
        torch.manual_seed(0)
        self.head = nn.Conv2d(channels, 17, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.head(self.backbone(x)[0])]


@lru_cache(maxsize=1)
def mmpose_hrformer(arch: str, window: int,
                    multiscale_output: bool) -> nn.Module:
    from mmpose.models.backbones import HRFormer as Peer
    torch.manual_seed(0)
    extra = mmpose_extra(arch, window, multiscale_output=multiscale_output)
    return Peer(extra, norm_cfg=dict(type='BN'))


def peer_of(case: Case) -> nn.Module:
    return mmpose_hrformer(case.arch, case.window, not case.heatmaps)


def with_head(backbone: nn.Module, case: Case) -> nn.Module:
    """Add the head of pose estimation, if the case has one."""
    if not case.heatmaps:
        return backbone
    return PoseNetwork(backbone, ARCHS[case.arch].channels[0])


def mmpose_copy(case: Case) -> nn.Module:
    return with_head(deepcopy(peer_of(case)), case)


def ours(case: Case, **kwargs) -> nn.Module:
    """Build HRFormer, with the weights of MMPose's if it is installed."""
    model = HRFormer(
        case.arch,
        window_size=case.window,
        upsample='bilinear',
        out_indices=(0, ) if case.heatmaps else (0, 1, 2, 3),
        **kwargs)
    try:
        model.load_state_dict(peer_of(case).state_dict())
    except ImportError:
        pass  # times do not depend on the weights
    return with_head(model, case)


def our_graph(case: Case) -> nn.Module:
    """Return HRFormer as tools/export.py traces it for ONNX."""
    return simplify(optimize(ours(case)))


def our_openvino_graph(case: Case) -> nn.Module:
    """Return HRFormer as tools/export.py traces it for OpenVINO."""
    return simplify(optimize(ours(case)), fused=False)


@lru_cache
def scratch() -> TemporaryDirectory:
    """Make a folder that is removed when the process ends."""
    return TemporaryDirectory()


@lru_cache
def exported(build: Callable[[Case], nn.Module], case: Case) -> Path:
    """Write a backbone as ONNX, for images of one size."""
    from torch.export import Dim

    from hrformer_mm.deploy.export import FUSED_OPSET, trace, write_onnx
    check_packages('onnx', 'onnxscript')
    model = build(case)
    model.eval()  # MMPose's returns None
    path = Path(scratch().name, f'{build.__name__}.onnx')
    dimensions = {0: Dim('batch')}
    program = trace(model, (2, 3, *case.size), dimensions)
    names = [f'map{i}' for i in range(1 if case.heatmaps else 4)]
    write_onnx(program, path, dimensions, names, FUSED_OPSET, {})
    return path


class FileBackbone(nn.Module):
    """A backbone that runs in onnxruntime or OpenVINO.

    Args:
        source: ONNX file.
        case: Case to measure.
        backend: ``onnxruntime`` or ``openvino``.
        precision: ``fp32``, ``bf16`` or ``int8`` of OpenVINO. int8 is
            calibrated with noise, which is enough for its speed.
    """

    def __init__(self, source: Path, case: Case, backend: str,
                 precision: str):
        super().__init__()
        check_packages(backend)
        network: Any = source
        if precision == 'int8':
            import openvino

            from hrformer_mm.deploy.quantize import quantize
            check_packages('nncf')
            noise = [torch.randn(case.batch, 3, *case.size).numpy()
                     for _ in range(2)]
            network, _ = quantize(openvino.Core().read_model(source), noise)
        self.session = Session(network, backend, precision,
                               case.threads or torch.get_num_threads())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(y) for y in self.session(x.numpy())]


def runtime_subjects() -> dict[str, tuple[bool, Callable]]:
    """Return the subjects of runtimes, for our graph and MMPose's export."""
    found: dict[str, tuple[bool, Callable]] = {}
    for prefix, graphs in (('', (our_graph, our_openvino_graph)),
                           ('mmpose-', (mmpose_copy, mmpose_copy))):
        for backend, precision in (('onnxruntime', 'fp32'),
                                   ('openvino', 'fp32'), ('openvino', 'bf16'),
                                   ('openvino', 'int8')):
            graph = graphs[backend == 'openvino']
            name = prefix + backend
            name += '' if precision == 'fp32' else f'-{precision}'
            found[name] = (
                True,
                lambda c, g=graph, b=backend, p=precision: FileBackbone(
                    exported(g, c), c, b, p))
    return found


def dtype_of(case: Case) -> torch.dtype | None:
    return None if case.dtype == 'fp32' else DTYPES[case.dtype]


def compiled(model: nn.Module, **options) -> nn.Module:
    model.forward = torch.compile(model.forward, fullgraph=True, **options)
    return model


def hrnet(width: int) -> nn.Module:
    """Build HRNet-W32 or -W48 of MMPose, with four outputs."""
    from mmpose.models.backbones import HRNet

    def stage(modules: int, branches: int, **kwargs) -> dict:
        channels = tuple(width * 2**i for i in range(branches))
        return dict(
            num_modules=modules,
            num_branches=branches,
            block='BASIC',
            num_blocks=(4, ) * branches,
            num_channels=channels,
            **kwargs)

    return HRNet(
        dict(
            stage1=dict(
                num_modules=1,
                num_branches=1,
                block='BOTTLENECK',
                num_blocks=(4, ),
                num_channels=(64, )),
            stage2=stage(1, 2),
            stage3=stage(4, 3),
            stage4=stage(3, 4, multiscale_output=True)))


def swin_t(case: Case) -> nn.Module:
    from mmpretrain.models.backbones import SwinTransformer
    return SwinTransformer(
        'tiny', img_size=case.size, out_indices=(0, 1, 2, 3))


def timm_swin_t(case: Case) -> nn.Module:
    import timm
    return timm.create_model(
        'swin_tiny_patch4_window7_224', img_size=case.size, features_only=True)


RUNTIMES = runtime_subjects()
# Name: whether the outputs must equal those of the first network, builder.
SUBJECTS: dict[str, tuple[bool, Callable[[Case], nn.Module]]] = {
    'mmpose': (True, mmpose_copy),
    'ours': (True, ours),
    'ours-cp-ffn': (True, lambda c: ours(c, with_cp='ffn')),
    'ours-cp-full': (True, lambda c: ours(c, with_cp=True)),
    'optimized': (True, lambda c: optimize(ours(c), dtype_of(c))),
    'optimized-bf16': (True, lambda c: optimize(ours(c), torch.bfloat16)),
    'compiled': (True, lambda c: compiled(ours(c))),
    'optimized-compiled':
    (True, lambda c: optimize(ours(c), dtype_of(c), compile=True)),
    'optimized-graphs':
    (True, lambda c: optimize(
        ours(c), dtype_of(c), compile=True, mode='reduce-overhead')),
    'mmpose-compiled':
    (True, lambda c: compiled(mmpose_copy(c))),
    'hrnet_w32': (False, lambda c: hrnet(32)),
    'hrnet_w48': (False, lambda c: hrnet(48)),
    'swin_t': (False, swin_t),
    'timm_swin_t': (False, timm_swin_t),
    **RUNTIMES,
}
INFERENCE_ONLY = ('optimized', 'optimized-bf16', 'optimized-compiled',
                  'optimized-graphs', *RUNTIMES)


def build(name: str, case: Case, device: torch.device) -> nn.Module:
    """Build a network for a case.

    Raises:
        ValueError: If the network is unknown, cannot be trained or has no
            head of pose estimation here.
    """
    if name not in SUBJECTS:
        raise ValueError(f'unknown subject {name!r}; choose from '
                         f'{", ".join(SUBJECTS)}')
    training = case.mode == 'train'
    if training and name in INFERENCE_ONLY:
        raise ValueError(f'{name} cannot be trained: use --mode forward')
    if case.heatmaps and not SUBJECTS[name][0]:
        raise ValueError(f'{name} has no heatmaps: leave out --heatmaps')
    model = SUBJECTS[name][1](case).to(device)
    model.train(training)  # MMPose's train() returns None
    return model
