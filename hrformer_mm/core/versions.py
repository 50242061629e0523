# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Compatibility with all PyTorch releases since 2.1.

The package uses APIs newer than torch 2.1 only through this module.
"""
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch.torch_version import TorchVersion
from torch.utils import flop_counter


def torch_is_at_least(version: str) -> bool:
    """Whether torch is this release, a nightly of it, or newer."""
    release = re.match(r'[\d.]*\d', torch.__version__)
    return release is None or TorchVersion(release[0]) >= version


# Comparing versions takes longer than the questions that depend on them.
DEVICE_IS_ARGUMENT = torch_is_at_least('2.4')  # of functions of autocast


def _is_autocast_enabled_on_cpu() -> bool:
    return torch.is_autocast_enabled('cpu')


is_autocast_enabled_on_cpu: Callable[[], bool] = _is_autocast_enabled_on_cpu
if not DEVICE_IS_ARGUMENT:
    is_autocast_enabled_on_cpu = torch.is_autocast_cpu_enabled

# torch.compile replaces calls of both by True.
is_compiling: Callable[[], bool] = getattr(torch.compiler, 'is_compiling',
                                           None) or torch._utils.is_compiling


# Unknown before torch 2.7, where compilers count as exporters.
is_exporting: Callable[[], bool] = getattr(torch.compiler, 'is_exporting',
                                           is_compiling)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Return the type of products under autocast, None without."""
    if not DEVICE_IS_ARGUMENT:
        is_on, dtype = ((torch.is_autocast_cpu_enabled,
                         torch.get_autocast_cpu_dtype) if device_type == 'cpu'
                        else (torch.is_autocast_enabled,
                              torch.get_autocast_gpu_dtype))
        return dtype() if is_on() else None
    if not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def register_flop_formula(operator: Any, formula: Callable[..., int]) -> None:
    """Register an operator in FlopCounterMode if it is not registered yet.

    Args:
        operator: ``OpOverloadPacket``, such as ``torch.ops.aten.mm``.
        formula: Function of the shapes of the tensors and ``out_shape``.
    """
    if hasattr(flop_counter, 'flop_registry'):  # torch >= 2.2
        if operator not in flop_counter.flop_registry:
            flop_counter.register_flop_formula(operator)(formula)
    else:
        mapping = getattr(flop_counter, 'flop_mapping')
        mapping.setdefault(operator, formula)


def can_export() -> bool:
    """Whether torch.export supports dynamic image sizes.

    :mod:`hrformer_mm.deploy.export` needs two of its options.
    """
    try:
        from torch.fx.experimental import _config
    except ImportError:
        return False
    return hasattr(_config, 'backed_size_oblivious') and (
        'prefer_deferred_runtime_asserts_over_guards' in inspect.signature(
            torch.export.export).parameters)
