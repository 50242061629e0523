# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A GPU that is only pretended: CUDA tensors that have no values.

PyTorch's ``FakeTensorMode`` computes shapes, types and devices of all results
and refuses what needs a value, such as ``.item()`` or a mask as an index: on a
GPU these wait for all work queued before. A tensor that is made on the CPU
inside the forward pass must be copied to the GPU, which waits, too, and stops
the capture of a CUDA graph.
"""
import traceback
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu_cost.count import DEVICE as GPU
from benchmarks.gpu_cost.count import move
from hrformer_mm import zoo

BATCH = 2


class CPUTensors(TorchDispatchMode):
    """Records the CPU tensors that are made while it is entered.

    Numbers without axes are kernel arguments; they are not copied.

    Attributes:
        found: The operation of each, and the line that called it.
    """

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and x.ndim and x.device.type == 'cpu':
                lines = traceback.extract_stack()
                own = [line for line in lines if 'torch' not in line.filename]
                where = own[-2] if own else lines[-2]
                self.found.append(f'{func} {tuple(x.shape)} in '
                                  f'{where.filename}:{where.lineno}')
        return out


def cls_samples(cfg: Config, shape: list[int],
                device: torch.device) -> list[Any]:
    """Soft labels, as mixup and CutMix give them."""
    from mmpretrain.structures import DataSample
    classes = cfg.model.head.num_classes
    return [
        DataSample().set_gt_score(torch.rand(classes, device=device))
        for _ in range(BATCH)
    ]


def seg_samples(cfg: Config, shape: list[int],
                device: torch.device) -> list[Any]:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    meta = dict(img_shape=tuple(shape), ori_shape=tuple(shape))
    label = torch.zeros(1, *shape, dtype=torch.int64, device=device)
    return [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=meta)
        for _ in range(BATCH)
    ]


def pose_samples(cfg: Config, shape: list[int],
                 device: torch.device) -> list[Any]:
    from mmengine.structures import InstanceData, PixelData
    from mmpose.structures import PoseDataSample
    count, codec = cfg.model.head.out_channels, cfg.codec
    samples = []
    for _ in range(BATCH):
        sample = PoseDataSample(metainfo=dict(img_shape=tuple(shape)))
        sample.gt_instance_labels = InstanceData(
            keypoint_weights=torch.ones(1, count, device=device),
            keypoint_labels=torch.ones(1, count, 2, device=device))
        if 'heatmap_size' in codec:
            width, height = codec.heatmap_size
            maps = torch.zeros(count, height, width, device=device)
            sample.gt_fields = PixelData(heatmaps=maps)
        samples.append(sample)
    return samples


SAMPLES = dict(
    mmpretrain=cls_samples, mmseg=seg_samples, mmpose=pose_samples)


def run(cfg: Config, loss: bool = True) -> list[str]:
    """Run the forward pass and the loss of a config's model.

    Args:
        cfg: Config of the model, without metrics that frameworks compute on
            the CPU in every iteration.
        loss: Compute the loss, too.

    Returns:
        The CPU tensors that were made.

    Raises:
        torch._subclasses.fake_tensor.DataDependentOutputException: If the
            value of a tensor is asked for.
    """
    scope = cfg.default_scope
    model = zoo.build_model(cfg)
    shape = list(zoo.input_size(cfg.filename))
    with DefaultScope.overwrite_default_scope(scope), FakeTensorMode():
        move(model)
        image = torch.zeros(BATCH, 3, *shape, device=GPU)
        samples = SAMPLES[scope](cfg, shape, GPU)
        with CPUTensors() as watch:
            if loss:
                model.train()(image, samples, mode='loss')
            with torch.no_grad():
                model.eval()(image, None, mode='tensor')
    return watch.found
