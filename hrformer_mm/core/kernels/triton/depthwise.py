# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Depth-wise 3x3 convolution with the norms and GELUs around it.

A program slides down some rows of a map, for a tile of columns and channels:
each row is loaded and activated once for each of the three columns of the
filter (the second and third time from the cache), and adds to three rows of
the output, of which two are kept in registers. So the map is read once and the
output written once, without the maps before and after either activation.
"""
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import gelu, load_channels, tile

ROWS = 16  # output rows of a program; two more are read
TILE = 1024  # elements of a tile of columns and channels


@triton.jit
def scale_shift(mean, var, weight, bias, eps, channel, C: tl.constexpr):
    """Fold a norm into a factor and a summand per channel."""
    scale = load_channels(weight, channel, C) * tl.rsqrt(
        load_channels(var, channel, C) + eps)
    shift = load_channels(bias, channel, C)
    return scale, shift - load_channels(mean, channel, C) * scale


@triton.jit
def load_activated(x, row, col, channel, scale, shift, H, W, C: tl.constexpr):
    """Load pixels of a row, normalized and activated; zero outside."""
    inside = (row >= 0) & (row < H) & (col >= 0) & (col < W)
    mask = inside[:, None] & (channel < C)[None, :]
    pixel = (row * W + col)[:, None]
    z = tl.load(x + pixel * C + channel[None, :], mask=mask, other=0.)
    z = gelu(z.to(tl.float32) * scale[None, :] + shift[None, :])
    return tl.where(mask, z, 0.)


@triton.jit
def load_tap(weight, channel, tap: tl.constexpr, C: tl.constexpr):
    """Load one of nine values of each channel's filter, as [1, C]."""
    value = tl.load(weight + channel * 9 + tap, mask=channel < C, other=0.)
    return value.to(tl.float32)[None, :]


@triton.jit
def depthwise_kernel(x, weight, bias, mean1, var1, weight1, bias1, eps1, mean2,
                     var2, weight2, bias2, eps2, y, H, W, C: tl.constexpr,
                     ROWS: tl.constexpr, BLOCK_M: tl.constexpr,
                     BLOCK_C: tl.constexpr, HAS_BIAS: tl.constexpr,
                     NORM1: tl.constexpr, NORM2: tl.constexpr):
    blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    pid = tl.program_id(0)
    channel = pid % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    across, down = tl.cdiv(W, BLOCK_M), tl.cdiv(H, ROWS)
    col = pid // blocks % across * BLOCK_M + tl.arange(0, BLOCK_M)
    first = pid // (blocks * across) % down * ROWS
    image = (pid // (blocks * across * down)).to(tl.int64) * H * W * C
    scale1 = tl.full([BLOCK_C], 1., tl.float32)
    shift1 = tl.zeros([BLOCK_C], tl.float32)
    scale2, shift2 = scale1, shift1
    if NORM1:
        scale1, shift1 = scale_shift(mean1, var1, weight1, bias1, eps1,
                                     channel, C)
    if NORM2:
        scale2, shift2 = scale_shift(mean2, var2, weight2, bias2, eps2,
                                     channel, C)
    if HAS_BIAS:
        shift2 += scale2 * load_channels(bias, channel, C)
    w00 = load_tap(weight, channel, 0, C)
    w01 = load_tap(weight, channel, 1, C)
    w02 = load_tap(weight, channel, 2, C)
    w10 = load_tap(weight, channel, 3, C)
    w11 = load_tap(weight, channel, 4, C)
    w12 = load_tap(weight, channel, 5, C)
    w20 = load_tap(weight, channel, 6, C)
    w21 = load_tap(weight, channel, 7, C)
    w22 = load_tap(weight, channel, 8, C)
    above = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)  # row - 1, unfinished
    here = tl.zeros([BLOCK_M, BLOCK_C], tl.float32)
    for i in range(ROWS + 2):
        row = first - 1 + i + col * 0
        left = load_activated(x + image, row, col - 1, channel, scale1, shift1,
                              H, W, C)
        middle = load_activated(x + image, row, col, channel, scale1, shift1,
                                H, W, C)
        right = load_activated(x + image, row, col + 1, channel, scale1,
                               shift1, H, W, C)
        above += w20 * left + w21 * middle + w22 * right
        z = gelu(above * scale2[None, :] + shift2[None, :])
        inside = (row >= first + 1) & (row <= H) & (col < W)
        pixel = ((row - 1) * W + col)[:, None]
        tl.store(
            y + image + pixel * C + channel[None, :],
            z.to(y.dtype.element_ty),
            mask=inside[:, None] & (channel < C)[None, :])
        above = here + w10 * left + w11 * middle + w12 * right
        here = w00 * left + w01 * middle + w02 * right


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None,
              norm1: Sequence[Tensor], eps1: float, norm2: Sequence[Tensor],
              eps2: float) -> Tensor:
    """Compute ``gelu(norm2(conv(gelu(norm1(x)))))`` of a map [B, H, W, C].

    See :func:`hrformer_mm.core.kernels.triton.ops.depthwise`.
    """
    B, H, W, C = x.shape
    none: Sequence[Tensor | None] = [None] * 4
    const = tile(C, widths=(64, 32), elements=TILE)
    y = torch.empty_like(x)
    programs = (
        triton.cdiv(C, const['BLOCK_C']) * triton.cdiv(W, const['BLOCK_M']) *
        triton.cdiv(H, ROWS) * B)
    depthwise_kernel[(programs, )](
        x,
        weight,
        bias,
        *(norm1 or none),
        eps1,
        *(norm2 or none),
        eps2,
        y,
        H,
        W,
        ROWS=ROWS,
        HAS_BIAS=bias is not None,
        NORM1=bool(norm1),
        NORM2=bool(norm2),
        **const)
    return y
