# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Tensors computed from parameters, kept from one inference to the next."""
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from ..versions import autocast_dtype, is_compiling

# By the first parameter, then by the function. It is no part of the modules,
# so copies, pickles and state dicts of them know nothing of it.
KEPT: Any = WeakTensorKeyDictionary()


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` is active."""
    peek = getattr(torch._C._functorch, 'peek_interpreter_stack', None)
    return peek is not None and peek() is not None


def is_capturing() -> bool:
    """Whether a CUDA graph is captured, which must read the parameters."""
    return (
        torch.cuda.is_initialized()
        and torch.cuda.is_current_stream_capturing())


def may_keep(tensors: Iterable[Tensor | None]) -> bool:
    """Whether results computed from these tensors may be reused later.

    The first tensor must be a parameter: weights that ``torch.func`` or data
    parallelism pass to a module live for one call.
    """
    if (is_compiling() or torch.jit.is_tracing() or in_transform()
            or is_capturing()):
        return False
    found = [t for t in tensors if t is not None]
    return (
        bool(found) and isinstance(found[0], nn.Parameter)
        and not any(t.is_meta or t.is_inference() for t in found)
        and not (torch.is_grad_enabled() and any(t.requires_grad
                                                 for t in found)))


def state_of(tensors: Iterable[Tensor]) -> list[Hashable]:
    """Return what changes when the memory or the values of tensors change."""
    return [(t._version, t.untyped_storage()._cdata, t.storage_offset(),
             t.stride(), t.dtype) for t in tensors]


def keep(function: Callable, tensors: Sequence[Tensor | None],
         *args: Hashable) -> Any:
    """Compute ``function(*tensors, *args)``, or return its kept result.

    Results are kept if :func:`may_keep` allows it. They are computed again
    after a tensor is changed in place (load_state_dict, optimizers), moved or
    replaced. PyTorch does not notice changes of ``parameter.data`` in place:
    call ``train()`` or ``eval()`` after them, which drop all results. Only the
    last result of a function is kept for each first tensor.

    Args:
        function: Function that returns a tensor or a tuple of tensors.
        tensors: Tensors or None; the first one is a parameter.
        *args: More arguments.
    """
    if not may_keep(tensors):
        return function(*tensors, *args)
    found = [t for t in tensors if t is not None]
    state = [args, *state_of(found)]
    entries: dict[Callable, Any] = KEPT.setdefault(found[0], {})
    old = entries.get(function)
    if old is not None and old[0] == state:
        return old[1]
    # A result of inference mode could not be used outside of it.
    with torch.inference_mode(False), torch.no_grad():
        result = function(*tensors, *args)
    first = result[0] if isinstance(result, tuple) else result
    if type(first) in (Tensor, type(found[0])):  # as real as the parameter
        # The storages stay alive, so no other one gets their address.
        storages = [t.untyped_storage() for t in found]
        entries[function] = state, result, storages
    return result


def product_dtype(weight: Tensor) -> torch.dtype:
    """Return the type in which a product of a weight is computed."""
    dtype = autocast_dtype(weight.device.type)
    return weight.dtype if weight.dtype == torch.float64 else (
        dtype or weight.dtype)


def cast(weight: Tensor, bias: Tensor | None,
         dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def layer_weights(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer.

    For inference under autocast they are kept in its type; autocast would
    convert them in every step.
    """
    tensors = layer.weight, layer.bias
    if not may_keep(tensors):
        return tensors
    dtype = product_dtype(layer.weight)
    return tensors if dtype == layer.weight.dtype else keep(
        cast, tensors, dtype)


class Keeper(nn.Module):
    """Module that drops kept results when its mode is set."""

    def train(self, mode: bool = True):
        for p in self.parameters() if len(KEPT) else ():
            KEPT.pop(p, None)
        return super().train(mode)
