# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Sum of the maps of all branches, upsampled while they are loaded, and ReLU.

Maps of the other branches are read from the cache where several pixels of the
output read the same one, so each map is read about once.
"""
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from .tiles import load_tile, store_tile, tile


@triton.jit
def load_upsampled(part, row, channel, rows, H, W, C: tl.constexpr,
                   FACTOR: tl.constexpr, BILINEAR: tl.constexpr):
    """Load pixels of a map upsampled by ``FACTOR``, corners not aligned."""
    if FACTOR == 1:
        return load_tile(part, row, channel, rows, C)
    h, w = H // FACTOR, W // FACTOR
    rows = rows // (FACTOR * FACTOR)
    x, y, image = row % W, row // W % H, row // (W * H)
    if not BILINEAR:
        at = (image * h + y // FACTOR) * w + x // FACTOR
        return load_tile(part, at, channel, rows, C)
    y_at = tl.maximum((y.to(tl.float32) + 0.5) / FACTOR - 0.5, 0.)
    x_at = tl.maximum((x.to(tl.float32) + 0.5) / FACTOR - 0.5, 0.)
    top, left = y_at.to(tl.int32), x_at.to(tl.int32)
    down, right = tl.minimum(top + 1, h - 1), tl.minimum(left + 1, w - 1)
    y_part = (y_at - top)[:, None]
    x_part = (x_at - left)[:, None]
    top, down = (image * h + top) * w, (image * h + down) * w
    upper = load_tile(part, top + left, channel, rows, C) * (1. - x_part)
    upper += load_tile(part, top + right, channel, rows, C) * x_part
    lower = load_tile(part, down + left, channel, rows, C) * (1. - x_part)
    lower += load_tile(part, down + right, channel, rows, C) * x_part
    return upper * (1. - y_part) + lower * y_part


@triton.jit
def fusion_kernel(part0, part1, part2, part3, y, rows, H, W, C: tl.constexpr,
                  BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
                  FACTOR0: tl.constexpr, FACTOR1: tl.constexpr,
                  FACTOR2: tl.constexpr, FACTOR3: tl.constexpr,
                  BILINEAR: tl.constexpr):
    """Sum up to four maps; those of factor 0 are absent."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    z = load_upsampled(part0, row, channel, rows, H, W, C, FACTOR0, BILINEAR)
    if FACTOR1 > 0:
        z += load_upsampled(part1, row, channel, rows, H, W, C, FACTOR1,
                            BILINEAR)
    if FACTOR2 > 0:
        z += load_upsampled(part2, row, channel, rows, H, W, C, FACTOR2,
                            BILINEAR)
    if FACTOR3 > 0:
        z += load_upsampled(part3, row, channel, rows, H, W, C, FACTOR3,
                            BILINEAR)
    store_tile(y, tl.maximum(z, 0.), row, channel, rows, C)


def fuse(parts: Sequence[Tensor], bilinear: bool, y: Tensor) -> None:
    """Write the ReLU of the sum of up to four maps [B, h, w, C] to y."""
    B, H, W, C = y.shape
    const = tile(C)
    maps: list[Tensor | None] = [*parts, None, None, None]
    factors = [H // p.shape[1] for p in parts] + [0] * 3
    grid = (triton.cdiv(B * H * W, const['BLOCK_M']),
            triton.cdiv(C, const['BLOCK_C']))
    fusion_kernel[grid](
        *maps[:4],
        y,
        B * H * W,
        H,
        W,
        BILINEAR=bilinear,
        **{f'FACTOR{i}': factor
           for i, factor in enumerate(factors[:4])},
        **const)
