# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Equal buffers on all processes, so that a metric is that of a checkpoint.

Without synchronised norms each process has running statistics of its own
batches. All evaluate a part of the data, but only the first one saves.
"""
from typing import Any, Iterator, List, Tuple

import torch
from mmengine.dist import all_reduce, broadcast, is_distributed
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ...registry import HOOKS

STATISTICS = ('running_mean', 'running_var')


def saved_buffers(model: nn.Module) -> Iterator[Tuple[bool, Tensor]]:
    """Yield buffers that checkpoints hold; True for running statistics."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and (
                    name not in module._non_persistent_buffers_set):
                yield (isinstance(module, _NormBase)
                       and name in STATISTICS), buffer


def average(tensors: List[Tensor]):
    """Replace each tensor by its mean over all processes.

    In double precision, where the mean of equal values in single precision
    is that value: averaging once more changes no bit.
    """
    if not tensors:
        return
    flat = torch.cat([t.detach().double().flatten() for t in tensors])
    all_reduce(flat, 'mean')
    parts = flat.split([t.numel() for t in tensors])
    for tensor, part in zip(tensors, parts):
        tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def synchronise_buffers(runner: Any):
    """Make buffers equal on all processes; all of them must call this.

    Running statistics become their mean. Of other buffers all take what the
    first process has, which saves. Models of an ``EMAHook`` are included.
    """
    if not is_distributed():
        return
    averages = [getattr(hook, 'ema_model', None) for hook in runner.hooks]
    for model in (runner.model, *averages):
        if isinstance(model, nn.Module):
            buffers = list(saved_buffers(model))
            average([b for is_mean, b in buffers if is_mean])
            for is_mean, buffer in buffers:
                if not is_mean:
                    broadcast(buffer)


@HOOKS.register_module()
class EqualBuffersHook(Hook):
    """Evaluate with equal buffers on all processes.

    ``SafeCheckpointHook`` does the same before it saves, so the metric of an
    evaluation is that of the checkpoint. mmengine's ``SyncBuffersHook``
    saves iteration-based training before the buffers are equal, and leaves
    out models of an ``EMAHook``.
    """

    def before_val_epoch(self, runner):
        synchronise_buffers(runner)
