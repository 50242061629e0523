# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convolutions, with the norm and GELU after them."""
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpointing import BatchNorm
from .bypass import may_bypass
from .cpu import EXACT, mix_channels, runs_on_cpu
from .kept import keep, may_keep, product_dtype


class PointwiseConv(nn.Conv2d):
    """1x1 convolution computed as one matrix product of channels-last maps."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, self.bias)

    def _conv_forward(self, x: Tensor, weight: Tensor,
                      bias: Tensor | None) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # [B, H, W, C], without a copy
        x = mix_channels(x, weight.flatten(1), bias)
        return x.permute(0, 3, 1, 2)


def fold(weight: Tensor, bias: Tensor | None, gamma: Tensor | None,
         beta: Tensor | None, mean: Tensor | None, var: Tensor | None,
         count: Tensor | None, eps: float,
         dtype: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
    """Fold a batch norm into the convolution before it.

    Args:
        weight: Weight of the convolution.
        bias: Bias of the convolution.
        gamma: Weight of the norm; None for no norm.
        beta: Bias of the norm.
        mean: Running mean.
        var: Running variance.
        count: Number of batches; unlike the statistics, it gets a new version
            when a batch is added to them.
        eps: Epsilon of the norm.
        dtype: Type of the results, by default that of the weight.

    Returns:
        Weight and bias.
    """
    dtype = dtype or weight.dtype
    if not (gamma is None or beta is None or mean is None or var is None):
        exact = torch.promote_types(var.dtype, torch.float32)
        scale = gamma * torch.rsqrt(var.to(exact) + eps)
        shift = -mean if bias is None else bias - mean
        bias = shift * scale + beta
        weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def fold_sum(*tensors: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """Fold two convolutions with norms whose outputs are added.

    Args:
        *tensors: Tensors of the first :func:`fold`, of the second one, the
            epsilon of both, and their type.

    Returns:
        Both weights, and the sum of the biases.
    """
    *parts, eps1, eps2, dtype = tensors
    first, second = (*parts[:7], eps1, dtype), (*parts[7:], eps2, dtype)
    (weight1, bias1), (weight2, bias2) = fold(*first), fold(*second)
    biases = [b for b in (bias1, bias2) if b is not None]
    return weight1, weight2, sum(biases[1:], biases[0]) if biases else None


def foldable(conv: Any, norm: Any, x: Tensor) -> list[Tensor | None]:
    """Return the tensors of :func:`fold`, none if it does not apply.

    It is for inference on GPUs.
    """
    if runs_on_cpu(x) or not may_bypass(conv, PointwiseConv, nn.Conv2d):
        return []
    tensors = [conv.weight, conv.bias]
    if is_affine(norm):
        tensors += [norm.weight, norm.bias, norm.running_mean,
                    norm.running_var, norm.num_batches_tracked]
    elif may_bypass(norm, nn.Identity):
        tensors += [None] * 5
    else:
        return []
    return tensors if may_keep(tensors) else []


def folded(conv: Any, norm: Any,
           x: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """Return weight and bias of a convolution and its norm, if foldable."""
    tensors = foldable(conv, norm, x)
    return keep(fold, tensors, getattr(norm, 'eps', 0.),
                product_dtype(conv.weight)) if tensors else None


def conv_norm(conv: Any, norm: Any, x: Tensor) -> Tensor:
    """Compute ``norm(conv(x))``.

    For inference on GPUs, the norm is folded into the weights, which are kept.
    """
    found = folded(conv, norm, x)
    return norm(conv(x)) if found is None else conv._conv_forward(x, *found)


def is_product(conv: Any, x: Tensor) -> bool:
    """Whether a convolution is a matrix product of the pixels of a map.

    Products with epilogues have no gradient.
    """
    return (not (torch.is_grad_enabled() and x.requires_grad)
            and x.device.type in ('cpu', 'cuda') and conv.kernel_size == (1, 1)
            and conv.stride == (1, 1) and conv.padding == (0, 0)
            and conv.groups == 1
            and x.is_contiguous(memory_format=torch.channels_last))


def pixels(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the pixels of a channels-last map, [B*H*W, C]."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).to(dtype)


def as_map(y: Tensor, x: Tensor) -> Tensor:
    """Undo :func:`pixels` for a map of the size of x."""
    B, _, H, W = x.shape
    return y.view(B, H, W, -1).permute(0, 3, 1, 2)


def relu_(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True)


def conv_norm_relu(conv: Any, norm: Any, x: Tensor,
                   act: Callable[[Tensor], Tensor] = relu_) -> Tensor:
    """Compute ``act(norm(conv(x)))``, where ``act`` is a ReLU.

    For inference on GPUs, 1x1 convolutions are products to which cuBLAS adds
    the bias and the ReLU, in one launch.
    """
    found = folded(conv, norm, x)
    if found is None:
        return act(norm(conv(x)))
    weight, bias = found
    if bias is None or not is_product(conv, x):
        return act(conv._conv_forward(x, weight, bias))
    y = torch._addmm_activation(bias, pixels(x, weight.dtype),
                                weight.flatten(1).t())
    return as_map(y, x)


def sum_conv_norms(conv1: Any, norm1: Any, x1: Tensor, conv2: Any, norm2: Any,
                   x2: Tensor) -> Tensor:
    """Compute ``norm1(conv1(x1)) + norm2(conv2(x2))``.

    For inference on GPUs, the product of a second 1x1 convolution is added to
    the output of the first one, without a map in between.
    """
    tensors = [*foldable(conv1, norm1, x1), *foldable(conv2, norm2, x2)]
    if len(tensors) == 14 and is_product(conv1, x1) and is_product(conv2, x2):
        weight1, weight2, bias = keep(
            fold_sum, tensors, getattr(norm1, 'eps', 0.),
            getattr(norm2, 'eps', 0.), product_dtype(conv1.weight))
        y = F.linear(pixels(x1, weight1.dtype), weight1.flatten(1), bias)
        y.addmm_(pixels(x2, weight2.dtype), weight2.flatten(1).t())
        return as_map(y, x1)
    y = conv_norm(conv1, norm1, x1)
    y += conv_norm(conv2, norm2, x2)  # no norm needs its output
    return y


def run_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Call layers one after another, convolutions with what follows them."""
    todo = list(layers)
    while todo:
        layer = todo.pop(0)
        if not (isinstance(layer, nn.Conv2d) and todo and isinstance(
                todo[0], (BatchNorm, nn.Identity))):
            x = layer(x)
            continue
        norm = todo.pop(0)
        if todo and may_bypass(todo[0], nn.ReLU):
            x = conv_norm_relu(layer, norm, x, todo.pop(0))
        else:
            x = conv_norm(layer, norm, x)
    return x


def conv_norm_act(conv: nn.Module, norm: nn.Module, act: nn.Module,
                  x: Tensor) -> Tensor:
    """Compute ``act(norm(conv(x)))`` of a channels-last map [B, C, H, W].

    Without gradients, CPUs overwrite the output of the convolution, and fuse
    the GELU with the product if there is no norm in between.
    """
    if not (runs_on_cpu(x) and may_bypass(act, nn.GELU)
            and getattr(act, 'approximate') == 'none'
            and may_bypass(conv, PointwiseConv, nn.Conv2d)):
        return act(conv_norm(conv, norm, x))
    if may_bypass(norm, nn.Identity) and not needs_gradient(conv, x):
        if fuses_gelu(conv, x):
            return product_gelu(conv, x)
        return torch.ops.aten.gelu_(conv(x))
    y = conv(x)
    if torch.is_grad_enabled() or y.dtype not in EXACT or not is_affine(norm):
        return act(norm(y))
    return norm_gelu_(norm, y)


def needs_gradient(conv: nn.Module, x: Tensor) -> bool:
    """Whether the input or a parameter of a convolution requires a gradient.
    """
    return torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in conv.parameters()))


def fuses_gelu(conv: nn.Module, x: Tensor) -> bool:
    """Whether oneDNN can fuse a GELU with a convolution and is then faster.

    It is slower for a depth-wise convolution.
    """
    return (
        may_bypass(conv, PointwiseConv)
        and x.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available())


def product_gelu(conv: Any, x: Tensor) -> Tensor:
    """Compute the GELU of a 1x1 convolution by one call of oneDNN."""
    y = torch.ops.mkldnn._linear_pointwise(
        x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias, 'gelu', [],
        'none')  # exact, without arguments
    return y.permute(0, 3, 1, 2)


def is_affine(norm: Any) -> bool:
    """Whether a norm scales and shifts channels by constants."""
    return (
        may_bypass(norm, BatchNorm, nn.SyncBatchNorm) and not norm.training
        and norm.affine is True and norm.running_mean is not None
        and norm.running_var is not None)


def norm_gelu_(norm: Any, x: Tensor) -> Tensor:
    """Overwrite a map with the GELU of its batch norm."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    y = x.permute(0, 2, 3, 1)
    torch.addcmul(shift, y, scale, out=y)
    return torch.ops.aten.gelu_(x)
