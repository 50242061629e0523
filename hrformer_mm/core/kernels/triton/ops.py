# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Fused operations as PyTorch custom operators.

Registration needs no Triton: kernels are imported when an operator runs. So
fake tensors, compilers and counters see one operation on every machine.
"""
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ...versions import register_flop_formula


def kernels(name: str) -> Any:
    """Import a module with kernels, which imports Triton."""
    return import_module(f'{__package__}.{name}')


@torch.library.custom_op(
    'hrformer_mm::window_attention',
    mutates_args=(),
    schema='(Tensor qkv, Tensor pad, Tensor? table, SymInt heads, SymInt '
           'window, SymInt[] shifts, bool mask_padding, float scale) ->'
           '(Tensor, Tensor)')
def window_attention(qkv: Tensor, pad: Tensor, table: Tensor | None,
                     heads: int, window: int, shifts: Sequence[int],
                     mask_padding: bool, scale: float
                     ) -> tuple[Tensor, Tensor]:
    """Compute attention in the windows of a map.

    Args:
        qkv: Contiguous queries, keys and values [B, H, W, 3*h*d].
        pad: Queries, keys and values of padding, [3*h*d], of any type.
        table: Relative position biases [(2*window - 1)**2, h].
        heads: Number of heads h.
        window: Height and width of a window; the map is padded evenly.
        shifts: Rows and columns by which windows are shifted, with a mask.
        mask_padding: Prevent real tokens from attending to padding.
        scale: Factor of the scores before the bias is added.

    Returns:
        The map [B, H, W, h*d]; for the backward pass the log-sum-exp of the
        scores of each query, [B*n, h, window**2].
    """
    return kernels('attention').forward(qkv, pad, table, heads, window, shifts,
                                        mask_padding, scale)


@window_attention.register_fake
def _(qkv, pad, table, heads, window, shifts, mask_padding, scale):
    B, H, W, channels = qkv.shape
    windows = B * -(-H // window) * -(-W // window)
    return (qkv.new_empty(B, H, W, channels // 3),
            qkv.new_empty(windows, heads, window**2, dtype=torch.float32))


@torch.library.custom_op(
    'hrformer_mm::window_attention_backward',
    mutates_args=(),
    schema='(Tensor dy, Tensor qkv, Tensor pad, Tensor? table, Tensor lse, '
           'SymInt heads, SymInt window, SymInt[] shifts, bool mask_padding, '
           'float scale) -> (Tensor, Tensor, Tensor)')
def window_attention_backward(
        dy: Tensor, qkv: Tensor, pad: Tensor, table: Tensor | None,
        lse: Tensor, heads: int, window: int, shifts: Sequence[int],
        mask_padding: bool, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of ``qkv``, ``pad`` and ``table``."""
    return kernels('attention_backward').backward(dy.contiguous(), qkv, pad,
                                                  table, lse, heads, window,
                                                  shifts, mask_padding, scale)


@window_attention_backward.register_fake
def _(dy, qkv, pad, table, *_):
    d_table = pad.new_empty(0) if table is None else torch.empty_like(table)
    return torch.empty_like(qkv), torch.empty_like(pad), d_table


def _save_attention(ctx, inputs, output):
    qkv, pad, table, *ctx.options = inputs
    ctx.save_for_backward(qkv, pad, table, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _attention_backward(ctx, dy, _):
    if dy is None:
        return (None, ) * 8
    saved = ctx.saved_tensors  # may be read only once under checkpointing
    grads = window_attention_backward(dy, *saved, *ctx.options)
    d_qkv, d_pad, d_table = grads
    d_table = d_table if saved[2] is not None else None
    return d_qkv, d_pad, d_table, None, None, None, None, None


window_attention.register_autograd(
    _attention_backward, setup_context=_save_attention)


def attention_flops(shape: Sequence[int], window: int, products: int) -> int:
    """Count the operations of products between the tokens of windows."""
    B, H, W, channels = shape
    tokens = B * -(-H // window) * -(-W // window) * window**2
    return products * 2 * tokens * window**2 * (channels // 3)


register_flop_formula(
    torch.ops.hrformer_mm.window_attention,
    lambda qkv, pad, table, heads, window, *_, **__: attention_flops(
        qkv, window, 2))
register_flop_formula(
    torch.ops.hrformer_mm.window_attention_backward,
    lambda dy, qkv, pad, table, lse, heads, window, *_, **__:
    attention_flops(qkv, window, 5))


@torch.library.custom_op(
    'hrformer_mm::batch_statistics',
    mutates_args=('running_mean', 'running_var', 'count'),
    schema='(Tensor x, Tensor(a!)? running_mean, Tensor(b!)? running_var, '
           'Tensor(c!)? count, float momentum) -> (Tensor, Tensor)')
def batch_statistics(x: Tensor, running_mean: Tensor | None,
                     running_var: Tensor | None, count: Tensor | None,
                     momentum: float) -> tuple[Tensor, Tensor]:
    """Compute mean and variance of channels, and update the running ones.

    It has no gradient: that of :func:`norm_gelu` includes it.

    Args:
        x: Contiguous map [B, H, W, C] with at least two pixels.
        running_mean: Mean to update, or None.
        running_var: Variance, likewise; its updates are unbiased.
        count: Number of batches, likewise.
        momentum: Weight of this batch in the running values.
    """
    return kernels('norms').batch_statistics(x, running_mean, running_var,
                                             count, momentum)


@batch_statistics.register_fake
def _(x, *_):
    mean = x.new_empty(x.shape[-1], dtype=torch.float32)
    return mean, torch.empty_like(mean)


@torch.library.custom_op(
    'hrformer_mm::norm_gelu',
    mutates_args=(),
    schema='(Tensor x, Tensor? mean, Tensor? var, Tensor? weight, Tensor? '
           'bias, float eps, Tensor? residual, Tensor? factor, bool batch)'
           '-> Tensor')
def norm_gelu(x: Tensor, mean: Tensor | None, var: Tensor | None,
              weight: Tensor | None, bias: Tensor | None, eps: float,
              residual: Tensor | None, factor: Tensor | None,
              batch: bool) -> Tensor:
    """Compute ``residual + factor * gelu(norm(x))`` of a map.

    Args:
        x: Contiguous map [B, H, W, C].
        mean: Mean of channels; None computes no norm.
        var: Variance of channels.
        weight: Factor of the norm.
        bias: Summand of the norm.
        eps: Added to the variance.
        residual: Contiguous map to add, or None.
        factor: Factor of each sample [B], or None.
        batch: Mean and variance are those of x, which the gradient of x
            includes.
    """
    y = torch.empty_like(x, dtype=sum_dtype(x, residual))
    kernels('norms').activation(x, mean, var, weight, bias, eps, residual,
                                factor, y)
    return y


def sum_dtype(x: Tensor, y: Tensor | None) -> torch.dtype:
    return x.dtype if y is None else torch.promote_types(x.dtype, y.dtype)


@norm_gelu.register_fake
def _(x, mean, var, weight, bias, eps, residual, factor, batch):
    return torch.empty_like(x, dtype=sum_dtype(x, residual))


@torch.library.custom_op(
    'hrformer_mm::norm_gelu_backward',
    mutates_args=(),
    schema='(Tensor dy, Tensor x, Tensor? mean, Tensor? var, Tensor? '
           'weight, Tensor? bias, float eps, Tensor? factor, bool batch) '
           '-> (Tensor, Tensor)')
def norm_gelu_backward(dy: Tensor, x: Tensor, mean: Tensor | None,
                       var: Tensor | None, weight: Tensor | None,
                       bias: Tensor | None, eps: float,
                       factor: Tensor | None,
                       batch: bool) -> tuple[Tensor, Tensor]:
    """Compute the gradients of x, and of bias and weight, [2, C]."""
    return kernels('norms').activation_backward(dy.contiguous(), x, mean, var,
                                                weight, bias, eps, factor,
                                                batch)


@norm_gelu_backward.register_fake
def _(dy, x, mean, *_):
    sums = x.new_empty(
        2, 0 if mean is None else len(mean), dtype=torch.float32)
    return torch.empty_like(x), sums


def _save_norm_gelu(ctx, inputs, output):
    x, mean, var, weight, bias, eps, residual, factor, batch = inputs
    ctx.save_for_backward(x, mean, var, weight, bias, factor)
    ctx.eps, ctx.batch = eps, batch
    ctx.residual_dtype = None if residual is None else residual.dtype


def _norm_gelu_backward(ctx, dy):
    x, mean, var, weight, bias, factor = ctx.saved_tensors
    dx, sums = norm_gelu_backward(dy, x, mean, var, weight, bias, ctx.eps,
                                  factor, ctx.batch)
    d_weight = d_bias = d_residual = None
    if weight is not None:
        d_bias, d_weight = sums.to(weight.dtype).unbind()
    if ctx.residual_dtype is not None:
        d_residual = dy.to(ctx.residual_dtype)
    return dx, None, None, d_weight, d_bias, None, d_residual, None, None


norm_gelu.register_autograd(
    _norm_gelu_backward, setup_context=_save_norm_gelu)


@torch.library.custom_op(
    'hrformer_mm::add_norm',
    mutates_args=(),
    schema='(Tensor x, Tensor y, Tensor? factor, Tensor weight, Tensor '
           'bias, float eps, ScalarType dtype) -> (Tensor, Tensor)')
def add_norm(x: Tensor, y: Tensor, factor: Tensor | None, weight: Tensor,
             bias: Tensor, eps: float,
             dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute ``x + factor * y`` of maps, and its layer norm.

    Args:
        x: Contiguous map [B, H, W, C].
        y: Contiguous map of the same shape.
        factor: Factor of each sample [B], or None.
        weight: Factor of the norm.
        bias: Summand of the norm.
        eps: Added to the variance.
        dtype: Type of the normalized map.
    """
    total = torch.empty_like(x, dtype=sum_dtype(x, y))
    normed = torch.empty_like(x, dtype=dtype)
    kernels('residual').add_norm(x, y, factor, weight, bias, eps, total,
                                 normed)
    return total, normed


@add_norm.register_fake
def _(x, y, factor, weight, bias, eps, dtype):
    return (torch.empty_like(x, dtype=sum_dtype(x, y)),
            torch.empty_like(x, dtype=dtype))


@torch.library.custom_op(
    'hrformer_mm::add_norm_backward',
    mutates_args=(),
    schema='(Tensor? d_total, Tensor d_normed, Tensor total, Tensor? '
           'factor, Tensor weight, float eps, ScalarType x_dtype, '
           'ScalarType y_dtype) -> (Tensor, Tensor, Tensor)')
def add_norm_backward(d_total: Tensor | None, d_normed: Tensor,
                      total: Tensor, factor: Tensor | None, weight: Tensor,
                      eps: float, x_dtype: torch.dtype,
                      y_dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of x, of y, and of bias and weight, [2, C].

    That of y is empty if it equals that of x.
    """
    dx = torch.empty_like(total, dtype=x_dtype)
    same = factor is None and x_dtype == y_dtype
    dy = torch.empty_like(total[:0] if same else total, dtype=y_dtype)
    d_total = None if d_total is None else d_total.contiguous()
    sums = kernels('residual').add_norm_backward(
        d_total, d_normed.contiguous(), total, factor, weight, eps, dx, dy)
    return dx, dy, sums


@add_norm_backward.register_fake
def _(d_total, d_normed, total, factor, weight, eps, x_dtype, y_dtype):
    same = factor is None and x_dtype == y_dtype
    return (torch.empty_like(total, dtype=x_dtype),
            torch.empty_like(total[:0] if same else total, dtype=y_dtype),
            total.new_empty(2, len(weight), dtype=torch.float32))


def _save_add_norm(ctx, inputs, output):
    x, y, factor, weight, _, ctx.eps, _ = inputs
    ctx.save_for_backward(output[0], factor, weight)
    ctx.dtypes = x.dtype, y.dtype
    ctx.set_materialize_grads(False)


def _add_norm_backward(ctx, d_total, d_normed):
    total, factor, weight = ctx.saved_tensors
    if d_normed is None:
        d_normed = torch.zeros_like(total)
    dx, dy, sums = add_norm_backward(d_total, d_normed, total, factor, weight,
                                     ctx.eps, *ctx.dtypes)
    d_bias, d_weight = sums.to(weight.dtype).unbind()
    return (dx, dy if dy.numel() else dx, None, d_weight, d_bias, None, None)


add_norm.register_autograd(_add_norm_backward, setup_context=_save_add_norm)


@torch.library.custom_op(
    'hrformer_mm::gelu_add_norm',
    mutates_args=(),
    schema='(Tensor x, Tensor y, Tensor[] norm1, float eps1, Tensor weight, '
           'Tensor bias, float eps, ScalarType dtype) -> (Tensor, Tensor)')
def gelu_add_norm(x: Tensor, y: Tensor, norm1: Sequence[Tensor], eps1: float,
                  weight: Tensor, bias: Tensor, eps: float,
                  dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute ``x + gelu(norm1(y))`` and its layer norm, without a gradient.

    Args:
        x: Contiguous map [B, H, W, C].
        y: Contiguous map of the same shape.
        norm1: Mean, variance, weight and bias of a norm; empty for none.
        eps1: Added to the variance.
        weight: Factor of the layer norm.
        bias: Summand of the layer norm.
        eps: Added to the variance of the layer norm.
        dtype: Type of the normalized map.
    """
    total = torch.empty_like(x, dtype=sum_dtype(x, y))
    normed = torch.empty_like(x, dtype=dtype)
    kernels('residual').add_norm(x, y, None, weight, bias, eps, total, normed,
                                 True, norm1, eps1)
    return total, normed


@gelu_add_norm.register_fake
def _(x, y, norm1, eps1, weight, bias, eps, dtype):
    return (torch.empty_like(x, dtype=sum_dtype(x, y)),
            torch.empty_like(x, dtype=dtype))


@torch.library.custom_op(
    'hrformer_mm::depthwise',
    mutates_args=(),
    schema='(Tensor x, Tensor weight, Tensor? bias, Tensor[] norm1, float '
           'eps1, Tensor[] norm2, float eps2) -> Tensor')
def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None,
              norm1: Sequence[Tensor], eps1: float, norm2: Sequence[Tensor],
              eps2: float) -> Tensor:
    """Compute ``gelu(norm2(conv(gelu(norm1(x)))))``, without a gradient.

    Args:
        x: Contiguous map [B, H, W, C].
        weight: Filters [C, 1, 3, 3].
        bias: Bias of the convolution, or None.
        norm1: Mean, variance, weight and bias of a norm; empty for none.
        eps1: Added to the variance.
        norm2: See ``norm1``.
        eps2: See ``eps1``.
    """
    return kernels('depthwise').depthwise(x, weight.contiguous(), bias, norm1,
                                          eps1, norm2, eps2)


@depthwise.register_fake
def _(x, *_):
    return torch.empty_like(x)


register_flop_formula(
    torch.ops.hrformer_mm.depthwise,
    lambda x, *_, **__: 2 * 9 * x[0] * x[1] * x[2] * x[3])


@torch.library.custom_op(
    'hrformer_mm::fuse',
    mutates_args=(),
    schema='(Tensor[] parts, SymInt H, SymInt W, bool bilinear) -> Tensor')
def fuse(parts: Sequence[Tensor], H: int, W: int, bilinear: bool) -> Tensor:
    """Compute the ReLU of a sum of upsampled maps, without a gradient.

    Args:
        parts: One to four contiguous maps [B, h, w, C], where h divides H, and
            w divides W by the same factor.
        H: Height of the result.
        W: Width of the result.
        bilinear: Interpolate, without aligned corners; nearest otherwise.
    """
    y = parts[0].new_empty(len(parts[0]), H, W, parts[0].shape[-1])
    kernels('fusion').fuse(parts, bilinear, y)
    return y


@fuse.register_fake
def _(parts, H, W, bilinear):
    return parts[0].new_empty(len(parts[0]), H, W, parts[0].shape[-1])
