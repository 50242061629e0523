# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Activation checkpointing that leaves batch-norm statistics alone."""
from contextlib import contextmanager, nullcontext
from typing import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BatchNorm = nn.modules.batchnorm._BatchNorm


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep running means and variances as they are.

    The backward pass of a checkpointed module runs its forward pass again;
    without this every batch would enter the running statistics twice.
    """
    norms = [
        m for m in module.modules() if isinstance(m, BatchNorm) and m.training
    ]
    saved = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum, m.num_batches_tracked = 0., None
    try:
        yield
    finally:
        for m, (momentum, count) in zip(norms, saved):
            m.momentum, m.num_batches_tracked = momentum, count


def recompute(module: nn.Module, function: Callable[[Tensor], Tensor],
              x: Tensor, when: bool) -> Tensor:
    """``function(x)``, whose activations are recomputed in backward.

    Args:
        module: Owner of the parameters that ``function`` uses.
        function: Takes and gives one tensor.
        x: Its input.
        when: Call the function as it is otherwise; also done where no
            gradient will be asked for.
    """
    if not (when and torch.is_grad_enabled()):
        return function(x)
    if torch.compiler.is_compiling():
        return checkpoint(function, x, use_reentrant=False)
    return checkpoint(
        function,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), frozen_statistics(module)))
