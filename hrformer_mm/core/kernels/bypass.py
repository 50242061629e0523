# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Conditions for fast paths that use a layer's parameters directly."""

from torch import nn
from torch.nn.modules import module as nn_module

HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks',
         '_backward_pre_hooks')
# nn_module._has_any_global_hook() is unknown to torch 2.1.
GLOBAL_HOOKS = tuple(f'_global{name}' for name in HOOKS)


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has forward or backward hooks."""
    return any(getattr(module, name) for name in HOOKS)


def may_bypass(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether using a layer's parameters is equivalent to calling the layer.

    It is not if the layer has hooks (pruning, profilers), is parametrized
    (``torch.nn.utils.parametrize``) or compiled separately, or if its
    ``forward`` is not that of one of ``kinds`` (LoRA, quantization, custom
    layers).
    """
    cls = type(module)
    return (
        any(cls.forward is kind.forward for kind in kinds)
        and not has_hooks(module) and 'forward' not in vars(module)
        and 'parametrizations' not in module._modules
        and getattr(module, '_compiled_call_impl', None) is None
        and not any(getattr(nn_module, name) for name in GLOBAL_HOOKS))
