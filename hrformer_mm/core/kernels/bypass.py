# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Conditions for fast paths that use a layer's parameters directly."""

from torch import nn
from torch.nn.modules import module as nn_module

from ..versions import is_compiling, torch_is_at_least

HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks',
         '_backward_pre_hooks')
# Older compilers cannot trace the questions below.
TRACED = torch_is_at_least('2.4')


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has forward or backward hooks."""
    return any(getattr(module, name) for name in HOOKS)


def has_global_hooks() -> bool:
    """Whether all modules have hooks; torch 2.1 cannot be asked."""
    return any(getattr(nn_module, f'_global{name}') for name in HOOKS)


def may_bypass(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether using a layer's parameters is equivalent to calling the layer.

    It is not if the layer has hooks (pruning, profilers), is parametrized
    (``torch.nn.utils.parametrize``) or compiled separately, or if its
    ``forward`` is not that of one of ``kinds`` (LoRA, quantization, custom
    layers).
    """
    if not TRACED and is_compiling():
        return False
    cls = type(module)
    return (
        any(cls.forward is kind.forward for kind in kinds)
        and not has_hooks(module) and 'forward' not in vars(module)
        and 'parametrizations' not in module._modules
        and getattr(module, '_compiled_call_impl', None) is None
        and not has_global_hooks())
