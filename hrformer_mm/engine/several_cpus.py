# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Patches for training with several processes on a machine without GPU."""
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any

from ..compat import after_import


def join_by_gloo_without_gpu(module: Any):
    """Patch the functions in mmengine's module that join processes."""
    for launcher in ('pytorch', 'slurm', 'mpi'):
        name = f'_init_dist_{launcher}'
        original = getattr(module, name, None)
        if original is not None:
            setattr(module, name, unless_on_cpu(original, launcher))


def unless_on_cpu(original: Callable, launcher: str) -> Callable:
    """Wrap a function that joins processes and selects a GPU first."""

    @wraps(original)
    def initialize(backend: str, *args: Any, init_backend: str = 'torch',
                   **kwargs: Any):
        from .distributed import has_no_gpu, join_by_gloo
        if init_backend == 'torch' and has_no_gpu():
            join_by_gloo(launcher, *args, **kwargs)
            return
        if init_backend != 'torch':
            kwargs['init_backend'] = init_backend
        original(backend, *args, **kwargs)

    return initialize


def take_models_on_cpu(module: Any):
    """Patch ``MMDistributedDataParallel`` in mmengine's module."""
    kind = module.MMDistributedDataParallel
    original = kind.__init__

    @wraps(original)
    def initialize(self: Any, module: Any, *args: Any, **kwargs: Any):
        if all(p.device.type in ('cpu', 'mps') for p in module.parameters()):
            from torch.nn import SyncBatchNorm

            from .distributed import synchronise_norms
            module = synchronise_norms(module, SyncBatchNorm)
            kwargs['device_ids'] = None
        original(self, module, *args, **kwargs)

    kind.__init__ = initialize


def install():
    """Enable training with several processes on a machine without GPU.

    mmengine <= 0.10.7 selects a GPU in each process before it joins them,
    passes its index to PyTorch with the model, and synchronises batch norms
    with a class for GPUs. Without the patches, configs that use nccl fail on
    CPU in all tools but ours. With a GPU, nothing changes.
    """
    if find_spec('mmengine') is None:
        return
    after_import.add('mmengine.dist.utils', join_by_gloo_without_gpu)
    after_import.add('mmengine.model.wrappers.distributed',
                     take_models_on_cpu)
