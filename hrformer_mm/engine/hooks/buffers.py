# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Synchronise buffers, so that metrics are those of the checkpoint.

Without synchronised norms, each process has running statistics of its own
batches. All processes evaluate a part of the data, but only the first one
saves its buffers.
"""
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import all_reduce, broadcast, is_distributed
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ...registry import HOOKS

STATISTICS = ('running_mean', 'running_var')


def saved_buffers(model: nn.Module) -> Iterator[tuple[bool, Tensor]]:
    """Yield whether a buffer is a running statistic, and the buffer.

    Buffers that are not saved in checkpoints are skipped.
    """
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and (
                    name not in module._non_persistent_buffers_set):
                yield (isinstance(module, _NormBase)
                       and name in STATISTICS), buffer


def average(tensors: list[Tensor]):
    """Replace each tensor by its mean over all processes.

    The mean is computed in double precision. If all processes have equal
    values in single precision, they do not change at all.
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

    Running statistics are averaged. Other buffers are copied from the first
    process, which saves. Models of an ``EMAHook`` are included.
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

    ``SafeCheckpointHook`` does the same before it saves, so the metrics of an
    evaluation are those of the checkpoint. With mmengine's
    ``SyncBuffersHook``, iteration-based training saves before the buffers are
    equal, and models of an ``EMAHook`` are ignored.
    """

    def before_val_epoch(self, runner):
        synchronise_buffers(runner)
