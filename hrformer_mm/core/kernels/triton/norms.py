# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Batch norm together with what surrounds it: GELU, residual, drop path.

An activation is ``residual + factor * gelu(norm(x))``. Its norm may be absent
(folded into a convolution), as well as the residual, and the factor of each
sample (drop path).
"""
import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import (
    gelu,
    gelu_slope,
    load_channels,
    load_tile,
    split,
    store_tile,
    tile,
)


@triton.jit
def statistics_kernel(x, means, squares, rows, span, C: tl.constexpr,
                      BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    """Compute mean and sum of squared deviations of ``span`` rows.

    Sums are of differences to the mean of the first tile, so that a mean much
    larger than the deviation does not cancel digits.
    """
    chunk = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = chunk * span
    end = tl.minimum(first + span, rows)
    row = first + tl.arange(0, BLOCK_M)
    tile = load_tile(x, row, channel, end, C)
    base = tl.sum(tile, 0) / tl.minimum(end - first, BLOCK_M)
    total = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    square = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for start in range(0, span, BLOCK_M):
        row = first + start + tl.arange(0, BLOCK_M)
        tile = load_tile(x, row, channel, end, C) - base[None, :]
        tile = tl.where((row < end)[:, None], tile, 0.)
        total += tile
        square += tile * tile
    sums = tl.sum(total, 0)
    mean = sums / (end - first)
    at = chunk * C + channel
    tl.store(means + at, base + mean, mask=channel < C)
    tl.store(squares + at, tl.sum(square, 0) - sums * mean, mask=channel < C)


@triton.jit
def combine_kernel(means, squares, mean_out, var_out, running_mean,
                   running_var, count, rows, span, chunks, momentum,
                   C: tl.constexpr, BLOCK_N: tl.constexpr,
                   BLOCK_C: tl.constexpr, TRACKED: tl.constexpr):
    """Combine the statistics of all chunks, and update the running ones."""
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
    for start in range(0, chunks, BLOCK_N):
        chunk = start + tl.arange(0, BLOCK_N)
        size = tl.minimum(rows - chunk * span, span).to(tl.float32)
        total += load_tile(means, chunk, channel, chunks, C) * size[:, None]
    mean = tl.sum(total, 0) / rows
    total = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
    for start in range(0, chunks, BLOCK_N):
        chunk = start + tl.arange(0, BLOCK_N)
        size = tl.minimum(rows - chunk * span, span).to(tl.float32)
        gap = load_tile(means, chunk, channel, chunks, C) - mean[None, :]
        total += tl.where((chunk < chunks)[:, None],
                          gap * gap * size[:, None], 0.)
        total += load_tile(squares, chunk, channel, chunks, C)
    square = tl.sum(total, 0)
    tl.store(mean_out + channel, mean, mask=channel < C)
    tl.store(var_out + channel, square / rows, mask=channel < C)
    if TRACKED:
        old_mean = load_channels(running_mean, channel, C)
        old_var = load_channels(running_var, channel, C)
        tl.store(
            running_mean + channel,
            old_mean + momentum * (mean - old_mean),
            mask=channel < C)
        tl.store(
            running_var + channel,
            old_var + momentum * (square / (rows - 1) - old_var),
            mask=channel < C)
        if tl.program_id(0) == 0:
            tl.store(count, tl.load(count) + 1)


@triton.jit
def activation_kernel(x, mean, var, weight, bias, residual, factor, y, rows,
                      per_sample, eps, C: tl.constexpr, BLOCK_M: tl.constexpr,
                      BLOCK_C: tl.constexpr, HAS_NORM: tl.constexpr,
                      HAS_RESIDUAL: tl.constexpr, HAS_FACTOR: tl.constexpr):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    z = load_tile(x, row, channel, rows, C)
    if HAS_NORM:
        inverse = tl.rsqrt(load_channels(var, channel, C) + eps)
        z = (z - load_channels(mean, channel, C)[None, :]) * inverse[None, :]
        z = z * load_channels(weight, channel, C)[None, :]
        z += load_channels(bias, channel, C)[None, :]
    z = gelu(z)
    if HAS_FACTOR:
        z *= tl.load(
            factor + row // per_sample, mask=row < rows,
            other=0.).to(tl.float32)[:, None]
    if HAS_RESIDUAL:
        z += load_tile(residual, row, channel, rows, C)
    store_tile(y, z, row, channel, rows, C)


@triton.jit
def activation_gradient(dy, x, mean, inverse, weight, bias, factor, row,
                        channel, rows, per_sample, C: tl.constexpr,
                        HAS_NORM: tl.constexpr, HAS_FACTOR: tl.constexpr):
    """Compute the gradient before GELU, and the normalized map."""
    d_z = load_tile(dy, row, channel, rows, C)
    x_hat = load_tile(x, row, channel, rows, C)
    if HAS_FACTOR:
        d_z *= tl.load(
            factor + row // per_sample, mask=row < rows,
            other=0.).to(tl.float32)[:, None]
    z = x_hat
    if HAS_NORM:
        x_hat = (x_hat - mean[None, :]) * inverse[None, :]
        z = x_hat * weight[None, :] + bias[None, :]
    return d_z * gelu_slope(z), x_hat


@triton.jit
def activation_sums_kernel(dy, x, mean, var, weight, bias, factor, sums, rows,
                           span, per_sample, eps, C: tl.constexpr,
                           BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
                           HAS_FACTOR: tl.constexpr):
    """Sum the gradients of bias and weight over ``span`` rows."""
    chunk = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    means = load_channels(mean, channel, C)
    inverse = tl.rsqrt(load_channels(var, channel, C) + eps)
    weights = load_channels(weight, channel, C)
    biases = load_channels(bias, channel, C)
    first = chunk * span
    end = tl.minimum(first + span, rows)
    total = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    product = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for start in range(0, span, BLOCK_M):
        row = first + start + tl.arange(0, BLOCK_M)
        d_z, x_hat = activation_gradient(dy, x, means, inverse, weights,
                                         biases, factor, row, channel, end,
                                         per_sample, C, True, HAS_FACTOR)
        total += d_z  # zero beyond the end, as its factor dy
        product += d_z * x_hat
    at = chunk * (2 * C) + channel
    tl.store(sums + at, tl.sum(total, 0), mask=channel < C)
    tl.store(sums + at + C, tl.sum(product, 0), mask=channel < C)


@triton.jit
def activation_backward_kernel(
        dy, x, mean, var, weight, bias, factor, sums, dx, rows, per_sample,
        eps, C: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
        HAS_NORM: tl.constexpr, BATCH: tl.constexpr, HAS_FACTOR: tl.constexpr):
    """Compute the gradient of x; ``BATCH`` if mean and var are of x."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    means, inverse, weights, biases = mean, var, weight, bias
    if HAS_NORM:
        means = load_channels(mean, channel, C)
        inverse = tl.rsqrt(load_channels(var, channel, C) + eps)
        weights = load_channels(weight, channel, C)
        biases = load_channels(bias, channel, C)
    d_z, x_hat = activation_gradient(dy, x, means, inverse, weights, biases,
                                     factor, row, channel, rows, per_sample, C,
                                     HAS_NORM, HAS_FACTOR)
    if BATCH:
        d_bias = load_channels(sums, channel, C) / rows
        d_weight = load_channels(sums + C, channel, C) / rows
        d_z -= d_bias[None, :] + x_hat * d_weight[None, :]
    if HAS_NORM:
        d_z *= (weights * inverse)[None, :]
    store_tile(dx, d_z, row, channel, rows, C)


def batch_statistics(x: Tensor, running_mean: Tensor | None,
                     running_var: Tensor | None, count: Tensor | None,
                     momentum: float) -> tuple[Tensor, Tensor]:
    """Compute mean and variance of channels, and update running ones."""
    C = x.shape[-1]
    rows, const = x.numel() // C, tile(C)
    blocks = triton.cdiv(C, const['BLOCK_C'])
    chunks, span = split(rows, const, blocks)
    parts = x.new_empty(2, chunks, C, dtype=torch.float32)
    mean, var = (x.new_empty(C, dtype=torch.float32) for _ in range(2))
    statistics_kernel[(chunks, blocks)](x, parts[0], parts[1], rows, span,
                                        **const)
    combine_kernel[(triton.cdiv(C, 16), )](
        parts[0],
        parts[1],
        mean,
        var,
        running_mean,
        running_var,
        count,
        rows,
        span,
        chunks,
        momentum,
        C,
        BLOCK_N=128,
        BLOCK_C=16,
        TRACKED=running_mean is not None)
    return mean, var


def activation(x: Tensor, mean: Tensor | None, var: Tensor | None,
               weight: Tensor | None, bias: Tensor | None, eps: float,
               residual: Tensor | None, factor: Tensor | None,
               y: Tensor) -> None:
    """Write ``residual + factor * gelu(norm(x))`` to y."""
    const = tile(x.shape[-1])
    rows = x.numel() // const['C']
    grid = (triton.cdiv(rows, const['BLOCK_M']),
            triton.cdiv(const['C'], const['BLOCK_C']))
    activation_kernel[grid](
        x,
        mean,
        var,
        weight,
        bias,
        residual,
        factor,
        y,
        rows,
        rows // len(x),
        eps,
        HAS_NORM=mean is not None,
        HAS_RESIDUAL=residual is not None,
        HAS_FACTOR=factor is not None,
        **const)


def activation_backward(dy: Tensor, x: Tensor, mean: Tensor | None,
                        var: Tensor | None, weight: Tensor | None,
                        bias: Tensor | None, eps: float,
                        factor: Tensor | None,
                        batch: bool) -> tuple[Tensor, Tensor]:
    """Compute the gradients of x, and of bias and weight, [2, C]."""
    const = tile(x.shape[-1])
    C, rows = const['C'], x.numel() // const['C']
    blocks = triton.cdiv(C, const['BLOCK_C'])
    dx, sums = torch.empty_like(x), x.new_empty(2, 0, dtype=torch.float32)
    flags = dict(HAS_FACTOR=factor is not None, **const)
    if mean is not None:
        chunks, span = split(rows, const, blocks)
        parts = x.new_empty(chunks, 2, C, dtype=torch.float32)
        activation_sums_kernel[(chunks, blocks)](
            dy, x, mean, var, weight, bias, factor, parts, rows, span,
            rows // len(x), eps, **flags)
        sums = parts.sum(0)
    activation_backward_kernel[(triton.cdiv(rows, const['BLOCK_M']), blocks)](
        dy,
        x,
        mean,
        var,
        weight,
        bias,
        factor,
        sums,
        dx,
        rows,
        rows // len(x),
        eps,
        HAS_NORM=mean is not None,
        BATCH=batch,
        **flags)
    return dx, sums
