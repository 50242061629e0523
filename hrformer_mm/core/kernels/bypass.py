# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""When a fast path may compute with a layer's parameters by itself."""
from typing import Type

from torch import nn
from torch.nn.modules import module as nn_module

HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks',
         '_backward_pre_hooks')


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module also calls something of somebody else."""
    return any(getattr(module, name) for name in HOOKS)


def may_bypass(module: nn.Module, *kinds: Type[nn.Module]) -> bool:
    """Whether using a layer's parameters equals calling the layer.

    It does not if the layer has hooks (as pruning and profilers add), is
    parametrized (``torch.nn.utils.parametrize``), compiled by itself, or
    computes by another ``forward`` than that of one of ``kinds`` (LoRA,
    quantization, a custom layer in its place).
    """
    cls = type(module)
    return (
        any(cls.forward is kind.forward for kind in kinds)
        and not has_hooks(module) and 'forward' not in vars(module)
        and 'parametrizations' not in module._modules
        and getattr(module, '_compiled_call_impl', None) is None
        and not nn_module._has_any_global_hook())
