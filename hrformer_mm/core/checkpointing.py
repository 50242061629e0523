# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Activation checkpointing that does not change batch-norm statistics."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .versions import is_compiling

BatchNorm = nn.modules.batchnorm._BatchNorm


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Freeze running means, variances and batch counts.

    The backward pass of a checkpointed module runs its forward pass again;
    otherwise every batch would update the running statistics twice. The count
    is replaced by another tensor, as synchronised norms need one.
    """
    norms = [
        m for m in module.modules() if isinstance(m, BatchNorm) and m.training
    ]
    saved = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m, (_, count) in zip(norms, saved):
        m.momentum = 0.
        if count is not None:
            m.num_batches_tracked = torch.empty_like(count)
    try:
        yield
    finally:
        for m, (momentum, count) in zip(norms, saved):
            m.momentum, m.num_batches_tracked = momentum, count


def recompute(module: nn.Module, function: Callable[[Tensor], Tensor],
              x: Tensor, when: bool) -> Tensor:
    """Call ``function(x)`` and recompute its activations in backward.

    Args:
        module: Owner of the parameters that ``function`` uses.
        function: Function of one tensor that returns one tensor.
        x: Input of the function.
        when: Whether to use checkpointing; it is also not used if no gradient
            is needed.
    """
    if not (when and torch.is_grad_enabled()):
        return function(x)
    if is_compiling():
        return checkpoint(function, x, use_reentrant=False)
    return checkpoint(
        function,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), frozen_statistics(module)))
