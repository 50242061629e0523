# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Norms together with what surrounds them: GELU, residual, drop path.

Maps are rows of C channels. A program computes a tile of rows and channels,
so that parameters are loaded once per tile and memory is read in whole lines;
C is a constant, from which Triton finds the widest loads. Statistics and sums
are accumulated in float32, in a fixed order: results are reproducible.

An activation is ``residual + factor * gelu(norm(x))``. Its norm may be absent
(folded into a convolution), as well as the residual, and the factor of each
sample (drop path).
"""
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # elements of a tile
PROGRAMS = 528  # see attention.PROGRAMS


@triton.jit
def gelu(x):
    return x * (0.5 + 0.5 * tl.erf(x * 0.7071067811865476))


@triton.jit
def gelu_slope(x):
    density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
    return 0.5 + 0.5 * tl.erf(x * 0.7071067811865476) + x * density


@triton.jit
def load_channels(at, channel, C: tl.constexpr):
    """Load a value per channel as float32."""
    return tl.load(at + channel, mask=channel < C, other=0.).to(tl.float32)


@triton.jit
def load_tile(at, row, channel, rows, C: tl.constexpr):
    """Load rows and channels of a map as float32."""
    x = tl.load(
        at + row.to(tl.int64)[:, None] * C + channel[None, :],
        mask=(row < rows)[:, None] & (channel < C)[None, :],
        other=0.)
    return x.to(tl.float32)


@triton.jit
def store_tile(at, x, row, channel, rows, C: tl.constexpr):
    tl.store(
        at + row.to(tl.int64)[:, None] * C + channel[None, :],
        x.to(at.dtype.element_ty),
        mask=(row < rows)[:, None] & (channel < C)[None, :])


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


@triton.jit
def normalize(x, channel, eps, C: tl.constexpr):
    """Normalize whole rows; return them and the inverse deviation."""
    mean = tl.sum(x, 1) / C
    centred = tl.where((channel < C)[None, :], x - mean[:, None], 0.)
    inverse = tl.rsqrt(tl.sum(centred * centred, 1) / C + eps)
    return centred * inverse[:, None], inverse


@triton.jit
def add_norm_kernel(x, y, factor, weight, bias, total, normed, rows,
                    per_sample, eps, C: tl.constexpr, BLOCK_M: tl.constexpr,
                    BLOCK_C: tl.constexpr, HAS_FACTOR: tl.constexpr):
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.arange(0, BLOCK_C)
    part = load_tile(y, row, channel, rows, C)
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


def tile(C: int,
         widths: Sequence[int] = (128, 64, 32),
         elements: int = TILE) -> dict[str, int]:
    """Choose the widest tile with at most a fifth of its channels idle."""
    fitting = [w for w in widths if 4 * (-(-C // w) * w) <= 5 * C]
    block = fitting[0] if fitting else widths[-1]
    return dict(C=C, BLOCK_M=elements // block, BLOCK_C=block)


def whole_rows(C: int) -> dict[str, int]:
    """Choose a tile of whole rows; its sums are of each program's threads."""
    block = triton.next_power_of_2(C)
    return dict(C=C, BLOCK_M=max(1, TILE // block), BLOCK_C=block)


def split(rows: int, const: dict[str, int],
          blocks: int = 1) -> tuple[int, int]:
    """Split rows into chunks for programs; return their number and size."""
    tiles = triton.cdiv(rows, const['BLOCK_M'])
    span = triton.cdiv(tiles, max(1, PROGRAMS // blocks)) * const['BLOCK_M']
    return triton.cdiv(rows, span), span


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


def add_norm(x: Tensor, y: Tensor, factor: Tensor | None, weight: Tensor,
             bias: Tensor, eps: float, total: Tensor, normed: Tensor) -> None:
    """Write ``x + factor * y`` to total and its layer norm to normed."""
    const = whole_rows(x.shape[-1])
    rows = x.numel() // const['C']
    add_norm_kernel[(triton.cdiv(rows, const['BLOCK_M']), )](
        x,
        y,
        factor,
        weight,
        bias,
        total,
        normed,
        rows,
        rows // len(x),
        eps,
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
