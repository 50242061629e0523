# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Conditions for fast paths that use a layer's parameters directly."""

from torch import nn
from torch.nn.modules import module as nn_module

from ..versions import is_compiling, torch_is_at_least

# Older compilers cannot trace the questions below.
TRACED = torch_is_at_least('2.4')


# Loops over names would take a tenth of the time of a small network.


def has_hooks(module: nn.Module) -> bool:
    """Whether a module has forward or backward hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks
                or module._backward_hooks or module._backward_pre_hooks)


def has_global_hooks() -> bool:
    """Whether all modules have hooks; torch 2.1 cannot be asked."""
    return bool(nn_module._global_forward_hooks
                or nn_module._global_forward_pre_hooks
                or nn_module._global_backward_hooks
                or nn_module._global_backward_pre_hooks)


def may_bypass(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether using a layer's parameters is equivalent to calling the layer.

    It is not if the layer has hooks (pruning, profilers), is parametrized
    (``torch.nn.utils.parametrize``) or compiled separately, or if its
    ``forward`` is not that of one of ``kinds`` (LoRA, quantization, custom
    layers).
    """
    if not TRACED and is_compiling():
        return False
    forward = type(module).forward
    for kind in kinds:
        if forward is kind.forward:
            break
    else:
        return False
    return (
        not has_hooks(module) and 'forward' not in vars(module)
        and 'parametrizations' not in module._modules
        and getattr(module, '_compiled_call_impl', None) is None
        and not has_global_hooks())
