# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convolutions, with the norm and GELU after them."""
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpointing import BatchNorm
from .bypass import may_bypass
from .cpu import EXACT, mix_channels, runs_on_cpu
from .kept import keep, may_keep


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


def fold(weight: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor,
         mean: Tensor, var: Tensor, count: Tensor | None,
         eps: float) -> tuple[Tensor, Tensor]:
    """Fold a batch norm into the convolution before it.

    Args:
        weight: Weight of the convolution.
        bias: Bias of the convolution.
        gamma: Weight of the norm.
        beta: Bias of the norm.
        mean: Running mean.
        var: Running variance.
        count: Number of batches; unlike the statistics, it gets a new version
            when a batch is added to them.
        eps: Epsilon of the norm.

    Returns:
        Weight and bias.
    """
    exact = torch.promote_types(var.dtype, torch.float32)
    scale = gamma * torch.rsqrt(var.to(exact) + eps)
    shift = -mean if bias is None else bias - mean
    bias = (shift * scale + beta).to(weight.dtype)
    scale = scale.view(-1, *[1] * (weight.ndim - 1))
    return (weight * scale).to(weight.dtype), bias


def conv_norm(conv: Any, norm: Any, x: Tensor) -> Tensor:
    """Compute ``norm(conv(x))``.

    For inference on GPUs, the norm is folded into the weights, which are kept.
    """
    if (not runs_on_cpu(x) and may_bypass(conv, PointwiseConv, nn.Conv2d)
            and is_affine(norm)):
        tensors = (conv.weight, conv.bias, norm.weight, norm.bias,
                   norm.running_mean, norm.running_var,
                   norm.num_batches_tracked)
        if may_keep(tensors):
            weight, bias = keep(fold, tensors, norm.eps)
            return conv._conv_forward(x, weight, bias)
    return norm(conv(x))


def run_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Call layers one after another, batch norms by :func:`conv_norm`."""
    todo = list(layers)
    while todo:
        layer = todo.pop(0)
        if isinstance(layer, nn.Conv2d) and todo and isinstance(
                todo[0], BatchNorm):
            x = conv_norm(layer, todo.pop(0), x)
        else:
            x = layer(x)
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
