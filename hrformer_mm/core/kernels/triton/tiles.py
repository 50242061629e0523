# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Tiles of maps, and the activation computed on them.

Maps are rows of C channels. A program computes a tile of rows and channels,
so that parameters are loaded once per tile and memory is read in whole lines;
C is a constant, from which Triton finds the widest loads. Statistics and sums
are accumulated in float32, in a fixed order: results are reproducible.
"""
from collections.abc import Sequence

import triton
import triton.language as tl

TILE = 4096  # elements of a tile
# Programs of kernels that accumulate over rows or windows: four for each
# multiprocessor of an H100, a constant so that sums do not depend on the GPU.
PROGRAMS = 528


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
