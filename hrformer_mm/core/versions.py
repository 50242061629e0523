# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""One name for each thing that PyTorch's releases since 2.1 name differently.

Everything in the package that is newer than torch 2.1 goes through here.
"""
import inspect
import re
from typing import Any, Callable

import torch
from torch.torch_version import TorchVersion
from torch.utils import flop_counter


def torch_is_at_least(version: str) -> bool:
    """Whether this torch is that release or newer; nightlies count as one."""
    release = re.match(r'[\d.]*\d', torch.__version__)
    return release is None or TorchVersion(release[0]) >= version


def _is_autocast_enabled_on_cpu() -> bool:
    return torch.is_autocast_enabled('cpu')


is_autocast_enabled_on_cpu: Callable[[], bool] = _is_autocast_enabled_on_cpu
if not torch_is_at_least('2.4'):  # where it takes no argument
    is_autocast_enabled_on_cpu = torch.is_autocast_cpu_enabled

# torch.compile replaces calls of either by True.
is_compiling: Callable[[], bool] = getattr(torch.compiler, 'is_compiling',
                                           None) or torch._utils.is_compiling


def register_flop_formula(operator: Any, formula: Callable[..., int]) -> None:
    """Let torch's FlopCounterMode count an operator, unless it can already.

    Args:
        operator: An ``OpOverloadPacket``, as ``torch.ops.aten.mm``.
        formula: Takes the shapes of the tensors, and ``out_shape``.
    """
    if hasattr(flop_counter, 'flop_registry'):  # torch >= 2.2
        if operator not in flop_counter.flop_registry:
            flop_counter.register_flop_formula(operator)(formula)
    else:
        mapping = getattr(flop_counter, 'flop_mapping')
        mapping.setdefault(operator, formula)


def can_export() -> bool:
    """Whether torch.export can leave the sizes of images open.

    :mod:`hrformer_mm.deploy.export` needs two of its options.
    """
    try:
        from torch.fx.experimental import _config
    except ImportError:
        return False
    return hasattr(_config, 'backed_size_oblivious') and (
        'prefer_deferred_runtime_asserts_over_guards' in inspect.signature(
            torch.export.export).parameters)
