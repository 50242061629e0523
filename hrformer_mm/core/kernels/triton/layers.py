# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Transformer blocks that use the fused operators where they cover a layer.

Each layer that has a hook, is replaced or is of another kind is called, with
plain operations around it.
"""
from typing import Any

import torch
from torch import Tensor, nn

from ...versions import autocast_dtype
from ..bypass import may_bypass
from ..feed_forward import PointwiseConv
from ..kept import layer_weights
from . import ops


def is_gelu(act: nn.Module) -> bool:
    return may_bypass(act, nn.GELU) and getattr(act, 'approximate') == 'none'


def fuses_batch_norm(norm: Any, x: Tensor) -> bool:
    """Whether :func:`norm_act` computes a norm of a map [B, H, W, C].

    PyTorch computes synchronized statistics, cumulative averages, and refuses
    those of a single pixel.
    """
    if may_bypass(norm, nn.Identity):
        return True
    kinds = (nn.BatchNorm2d, ) if norm.training else (nn.BatchNorm2d,
                                                      nn.SyncBatchNorm)
    return (
        may_bypass(norm, *kinds) and norm.affine is True
        and norm.momentum is not None
        and (norm.running_mean is None or norm.track_running_stats)
        and x.numel() > x.shape[-1])


def statistics(norm: Any, x: Tensor) -> list[Tensor]:
    """Return the mean and variance that a batch norm uses."""
    if not norm.training and norm.running_mean is not None:
        return [norm.running_mean, norm.running_var]
    return list(
        ops.batch_statistics(x.detach(), norm.running_mean, norm.running_var,
                             norm.num_batches_tracked, norm.momentum))


def norm_act(norm: Any,
             act: nn.Module,
             x: Tensor,
             residual: Tensor | None = None,
             factor: Tensor | None = None) -> Tensor:
    """Compute ``residual + factor * act(norm(x))`` of a map [B, H, W, C].

    Args:
        norm: Batch norm, or ``nn.Identity``.
        act: Activation.
        x: Map.
        residual: Map to add, or None.
        factor: Factor of each sample [B, 1, 1, 1], or None.
    """
    if not (is_gelu(act) and fuses_batch_norm(norm, x)):
        y = act(norm(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        y = y if factor is None else y * factor
        return y if residual is None else residual + y
    residual = None if residual is None else residual.contiguous()
    factor = None if factor is None else factor.flatten()
    if may_bypass(norm, nn.Identity):
        return ops.norm_gelu(x, None, None, None, None, 0., residual, factor,
                             False)
    batch = norm.training or norm.running_mean is None
    return ops.norm_gelu(x, *statistics(norm, x), norm.weight, norm.bias,
                         norm.eps, residual, factor, batch)


def is_constant(norm: Any, x: Tensor) -> bool:
    """Whether a batch norm of a map is folded or uses running values."""
    return fuses_batch_norm(norm, x) and (
        may_bypass(norm, nn.Identity)
        or (not norm.training and norm.running_mean is not None))


def is_plain_depthwise(conv: Any) -> bool:
    """Whether a layer is a 3x3 depth-wise convolution padded with zeros."""
    return (
        may_bypass(conv, nn.Conv2d) and conv.weight.shape[1:] == (1, 3, 3)
        and conv.in_channels == conv.out_channels
        and (conv.stride, conv.dilation) == ((1, 1), (1, 1))
        and conv.padding in ((1, 1), 'same') and conv.padding_mode == 'zeros')


def fuses_depthwise(ffn: Any, x: Tensor) -> bool:
    """Whether one kernel computes the middle of a feed-forward layer.

    It has no gradient, and batch norms must be folded or use running values.
    """
    conv, norms = ffn.dw3x3, (ffn.norm1, ffn.norm2)
    needs_gradient = torch.is_grad_enabled() and (
        x.requires_grad
        or any(p.requires_grad for m in (conv, *norms)
               for p in m.parameters()))
    return (not needs_gradient and is_plain_depthwise(conv)
            and is_gelu(ffn.act1) and is_gelu(ffn.act2)
            and all(is_constant(norm, x) for norm in norms))


def running_values(norm: Any) -> list[Tensor]:
    """Return mean, variance, weight and bias of a norm, none if folded."""
    if may_bypass(norm, nn.Identity):
        return []
    return [norm.running_mean, norm.running_var, norm.weight, norm.bias]


def apply_conv(conv: Any, x: Tensor) -> Tensor:
    """Apply a convolution to a map [B, H, W, C]."""
    x = x.permute(0, 3, 1, 2)
    y = conv._conv_forward(x, *layer_weights(conv)) if may_bypass(
        conv, PointwiseConv, nn.Conv2d) else conv(x)
    return y.permute(0, 2, 3, 1).contiguous()


def feed_forward(ffn: Any,
                 x: Tensor,
                 residual: Tensor,
                 factor: Tensor | None = None,
                 then: Any = None) -> tuple[Tensor, Tensor | None]:
    """Compute ``residual + factor * ffn(x)`` of an ``FFN`` layer.

    Args:
        ffn: Layer.
        x: Map [B, H, W, C].
        residual: Map to add.
        factor: Factor of each sample [B, 1, 1, 1], or None.
        then: Norm that follows, or None.

    Returns:
        The sum, and its norm if that is computed in the same launch.
    """
    x = apply_conv(ffn.fc1, x)
    if ffn.dw3x3 is None:
        x = norm_act(ffn.norm1, ffn.act1, x)
    elif fuses_depthwise(ffn, x):
        x = ops.depthwise(x, ffn.dw3x3.weight, ffn.dw3x3.bias,
                          running_values(ffn.norm1), getattr(
                              ffn.norm1, 'eps', 0.), running_values(ffn.norm2),
                          getattr(ffn.norm2, 'eps', 0.))
    else:
        x = apply_conv(ffn.dw3x3, norm_act(ffn.norm1, ffn.act1, x))
        x = norm_act(ffn.norm2, ffn.act2, x)
    x = apply_conv(ffn.fc2, x)
    if not (then is not None and factor is None and is_layer_norm(then, x)
            and is_gelu(ffn.act3) and is_constant(ffn.norm3, x)
            and not torch.is_grad_enabled()):
        return norm_act(ffn.norm3, ffn.act3, x, residual, factor), None
    return ops.gelu_add_norm(residual.contiguous(), x,
                             running_values(ffn.norm3),
                             getattr(ffn.norm3, 'eps', 0.), then.weight,
                             then.bias, then.eps, norm_dtype(residual, x))


def is_layer_norm(norm: Any, x: Tensor) -> bool:
    """Whether a norm is a layer norm of the channels of a map."""
    return (may_bypass(norm, nn.LayerNorm) and norm.weight is not None
            and norm.bias is not None
            and norm.normalized_shape == (x.shape[-1], )
            and x.shape[-1] <= 4096)


def norm_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """Return the type of the norm of ``x + y``.

    Under autocast the norm is rounded at once to the type of the product that
    follows, not kept in float32.
    """
    return autocast_dtype(x.device.type) or torch.promote_types(
        x.dtype, y.dtype)


def add_norm(norm: Any, x: Tensor, y: Tensor,
             factor: Tensor | None) -> tuple:
    """Compute ``x + factor * y`` and its layer norm."""
    if not is_layer_norm(norm, x):
        x = x + (y if factor is None else y * factor)
        return x, norm(x)
    factor = None if factor is None else factor.flatten()
    return ops.add_norm(x.contiguous(), y.contiguous(), factor, norm.weight,
                        norm.bias, norm.eps, norm_dtype(x, y))
