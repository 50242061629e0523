# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Sum of a map and a residual, and the layer norm of the sum.

A program computes whole rows of C channels.
"""
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import (
    gelu,
    load_channels,
    load_tile,
    split,
    store_tile,
    whole_rows,
)


@triton.jit
def normalize(x, channel, eps, C: tl.constexpr):
    """Normalize whole rows; return them and the inverse deviation."""
    mean = tl.sum(x, 1) / C
    centred = tl.where((channel < C)[None, :], x - mean[:, None], 0.)
    inverse = tl.rsqrt(tl.sum(centred * centred, 1) / C + eps)
    return centred * inverse[:, None], inverse


@triton.jit
def add_norm_kernel(x, y, mean, var, scale, shift, norm_eps, factor, weight,
                    bias, total, normed, rows, per_sample, eps,
                    C: tl.constexpr, BLOCK_M: tl.constexpr,
                    BLOCK_C: tl.constexpr, HAS_NORM: tl.constexpr,
                    ACTIVATE: tl.constexpr, HAS_FACTOR: tl.constexpr):
    """Add rows and normalize the sum; a norm and GELU of y may come first."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.arange(0, BLOCK_C)
    part = load_tile(y, row, channel, rows, C)
    if HAS_NORM:
        inverse = tl.rsqrt(load_channels(var, channel, C) + norm_eps)
        part -= load_channels(mean, channel, C)[None, :]
        part *= (load_channels(scale, channel, C) * inverse)[None, :]
        part += load_channels(shift, channel, C)[None, :]
    if ACTIVATE:
        part = gelu(part)
    if HAS_FACTOR:
        part *= tl.load(
            factor + row // per_sample, mask=row < rows,
            other=0.).to(tl.float32)[:, None]
    z = load_tile(x, row, channel, rows, C) + part
    store_tile(total, z, row, channel, rows, C)
    # The backward pass normalizes what was stored.
    z = z.to(total.dtype.element_ty).to(tl.float32)
    x_hat, _ = normalize(z, channel, eps, C)
    z = x_hat * load_channels(weight, channel, C)[None, :]
    z += load_channels(bias, channel, C)[None, :]
    store_tile(normed, z, row, channel, rows, C)


@triton.jit
def add_norm_backward_kernel(
        d_total, d_normed, total, factor, weight, dx, dy, sums, rows, span,
        per_sample, eps, C: tl.constexpr, BLOCK_M: tl.constexpr,
        BLOCK_C: tl.constexpr, HAS_TOTAL: tl.constexpr,
        HAS_FACTOR: tl.constexpr, STORE_DY: tl.constexpr):
    """Compute the gradients of ``span`` rows, and sum those of parameters.

    The gradient of y is stored only if it differs from that of x.
    """
    channel = tl.arange(0, BLOCK_C)
    first = tl.program_id(0) * span
    end = tl.minimum(first + span, rows)
    weights = load_channels(weight, channel, C)
    d_bias = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    d_weight = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for start in range(0, span, BLOCK_M):
        row = first + start + tl.arange(0, BLOCK_M)
        grad = load_tile(d_normed, row, channel, end, C)
        x_hat, inverse = normalize(
            load_tile(total, row, channel, end, C), channel, eps, C)
        d_bias += grad
        d_weight += grad * x_hat
        grad *= weights[None, :]
        mean = tl.sum(grad, 1) / C
        slope = tl.sum(grad * x_hat, 1) / C
        grad = (grad - mean[:, None] - x_hat * slope[:, None])
        grad *= inverse[:, None]
        if HAS_TOTAL:
            grad += load_tile(d_total, row, channel, end, C)
        store_tile(dx, grad, row, channel, end, C)
        if HAS_FACTOR:
            grad *= tl.load(
                factor + row // per_sample, mask=row < end,
                other=0.).to(tl.float32)[:, None]
        if STORE_DY:
            store_tile(dy, grad, row, channel, end, C)
    at = tl.program_id(0) * (2 * C) + channel
    tl.store(sums + at, tl.sum(d_bias, 0), mask=channel < C)
    tl.store(sums + at + C, tl.sum(d_weight, 0), mask=channel < C)


def add_norm(x: Tensor,
             y: Tensor,
             factor: Tensor | None,
             weight: Tensor,
             bias: Tensor,
             eps: float,
             total: Tensor,
             normed: Tensor,
             activate: bool = False,
             norm: Sequence[Tensor] = (),
             norm_eps: float = 0.) -> None:
    """Write ``x + factor * y`` to total and its layer norm to normed.

    With ``activate``, y is replaced by the GELU of its batch norm, if any.
    """
    none: Sequence[Tensor | None] = [None] * 4
    const = whole_rows(x.shape[-1])
    rows = x.numel() // const['C']
    add_norm_kernel[(triton.cdiv(rows, const['BLOCK_M']), )](
        x,
        y,
        *(norm or none),
        norm_eps,
        factor,
        weight,
        bias,
        total,
        normed,
        rows,
        rows // len(x),
        eps,
        HAS_NORM=bool(norm),
        ACTIVATE=activate,
        HAS_FACTOR=factor is not None,
        **const)


def add_norm_backward(d_total: Tensor | None, d_normed: Tensor,
                      total: Tensor, factor: Tensor | None, weight: Tensor,
                      eps: float, dx: Tensor, dy: Tensor) -> Tensor:
    """Write the gradients of x and y; return those of bias and weight.

    Nothing is written to an empty dy.
    """
    const = whole_rows(total.shape[-1])
    rows = total.numel() // const['C']
    chunks, span = split(rows, const)
    sums = total.new_empty(chunks, 2, const['C'], dtype=torch.float32)
    add_norm_backward_kernel[(chunks, )](
        d_total,
        d_normed,
        total,
        factor,
        weight,
        dx,
        dy,
        sums,
        rows,
        span,
        rows // len(total),
        eps,
        HAS_TOTAL=d_total is not None,
        HAS_FACTOR=factor is not None,
        STORE_DY=dy.numel() > 0,
        num_warps=8,  # for the registers of both sums
        **const)
    return sums.sum(0)
