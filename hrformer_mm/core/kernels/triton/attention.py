# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Window attention from a map of queries, keys and values to a map.

A program computes one head of one window, in blocks of at most 64 tokens: one
block for windows up to 8, four for a window of 15. It reads the rows of its
pixels where the linear layer left them (padding, shifts and masks are
computed from coordinates) and keeps scores in registers, so that the map is
read once and the output written once. Programs of the heads of a window are
neighbours, because they share cache lines. Products accumulate in float32.

Shape comments use T tokens in a window, h heads and d channels of a head.
"""
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

# Float32 products without TF32, as PyTorch's default. 'tf32x3' is nearly as
# exact and uses tensor cores.
PRECISION = 'ieee'
BLOCK = 64


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """Multiply float32 with half precision, without rounding a to the latter.

    The product is that of a rounded to half precision and of what is left.
    """
    if b.dtype == tl.float32:
        return tl.dot(a, b, input_precision=PRECISION)
    high = a.to(b.dtype)
    low = (a - high.to(tl.float32)).to(b.dtype)
    return tl.dot(low, b, acc=tl.dot(high, b))


@triton.jit
def locate(window, token, H, W, shift_h, shift_w, WINDOW: tl.constexpr):
    """Return the pixel of each token, whether it is one, and its region.

    Padding is no pixel, nor are tokens beyond the window. Regions are the
    sides of the wrap-around of shifted windows.
    """
    down, across = tl.cdiv(H, WINDOW), tl.cdiv(W, WINDOW)
    padded_h, padded_w = down * WINDOW, across * WINDOW
    row = window // across % down * WINDOW + token // WINDOW
    col = window % across * WINDOW + token % WINDOW
    region = (row >= padded_h - shift_h).to(tl.int32) * 2
    region += (col >= padded_w - shift_w).to(tl.int32)
    y = (row + shift_h) % padded_h - (padded_h - H) // 2
    x = (col + shift_w) % padded_w - (padded_w - W) // 2
    real = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    return y * W + x, real & (token < WINDOW * WINDOW), region


@triton.jit
def load_rows(rows, pad, pixel, real, stride, D: tl.constexpr,
              BLOCK_D: tl.constexpr, PADDED: tl.constexpr):
    """Load d channels of each token, those of ``pad`` for padding."""
    channel = tl.arange(0, BLOCK_D)
    inside = channel < D
    x = tl.load(
        rows + pixel[:, None] * stride + channel[None, :],
        mask=real[:, None] & inside[None, :],
        other=0.)
    if PADDED:
        fill = tl.load(pad + channel, mask=inside, other=0.).to(x.dtype)
        x = tl.where(real[:, None], x, fill[None, :])
    return x


@triton.jit
def store_rows(rows, x, pixel, real, stride, D: tl.constexpr,
               BLOCK_D: tl.constexpr):
    channel = tl.arange(0, BLOCK_D)
    tl.store(
        rows + pixel[:, None] * stride + channel[None, :],
        x.to(rows.dtype.element_ty),
        mask=real[:, None] & (channel < D)[None, :])


@triton.jit
def compute_scores(q, k, table, scale, head, q_token, k_token, q_real, k_real,
                   q_region, k_region, HEADS: tl.constexpr,
                   WINDOW: tl.constexpr, HAS_TABLE: tl.constexpr,
                   SHIFTED: tl.constexpr, MASK_PADDING: tl.constexpr,
                   PRECISION: tl.constexpr):
    """Compute q k^T * scale + bias in float32; -inf where masked."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    keep = (k_token < WINDOW * WINDOW)[None, :]
    if HAS_TABLE:
        # The row of the table is a difference of a number of each token.
        side: tl.constexpr = 2 * WINDOW - 1
        q_at = q_token // WINDOW * side + q_token % WINDOW
        k_at = k_token // WINDOW * side + k_token % WINDOW
        at = q_at[:, None] - k_at[None, :] + (WINDOW - 1) * (side + 1)
        inside = (q_token < WINDOW * WINDOW)[:, None] & keep
        scores += tl.load(
            table + at * HEADS + head, mask=inside, other=0.).to(tl.float32)
    if SHIFTED:
        keep = keep & (q_region[:, None] == k_region[None, :])
    if MASK_PADDING:
        keep = keep & (k_real[None, :] | (q_real == 0)[:, None])
    return tl.where(keep, scores, float('-inf'))


@triton.jit
def forward_kernel(qkv, pad, table, out, lse, H, W, shift_h, shift_w, scale,
                   HEADS: tl.constexpr, D: tl.constexpr, WINDOW: tl.constexpr,
                   BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
                   HAS_TABLE: tl.constexpr, SHIFTED: tl.constexpr,
                   PADDED: tl.constexpr, MASK_PADDING: tl.constexpr,
                   PRECISION: tl.constexpr):
    T: tl.constexpr = WINDOW * WINDOW
    BLOCKS: tl.constexpr = (T + BLOCK - 1) // BLOCK
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    block = tl.program_id(0) // HEADS % BLOCKS
    window = tl.program_id(0) // (HEADS * BLOCKS)
    image = window // (tl.cdiv(H, WINDOW) * tl.cdiv(W, WINDOW))
    first = image.to(tl.int64) * H * W
    rows = qkv + first * (3 * C) + head * D
    pads = pad + head * D
    q_token = block * BLOCK + tl.arange(0, BLOCK)
    q_pixel, q_real, q_region = locate(window, q_token, H, W, shift_h, shift_w,
                                       WINDOW)
    q = load_rows(rows, pads, q_pixel, q_real, 3 * C, D, BLOCK_D, PADDED)
    largest = tl.full([BLOCK], float('-inf'), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    y = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for start in range(0, T, BLOCK):
        k_token = start + tl.arange(0, BLOCK)
        k_pixel, k_real, k_region = locate(window, k_token, H, W, shift_h,
                                           shift_w, WINDOW)
        k = load_rows(rows + C, pads + C, k_pixel, k_real, 3 * C, D, BLOCK_D,
                      PADDED)
        v = load_rows(rows + 2 * C, pads + 2 * C, k_pixel, k_real, 3 * C, D,
                      BLOCK_D, PADDED)
        scores = compute_scores(q, k, table, scale, head, q_token, k_token,
                                q_real, k_real, q_region, k_region, HEADS,
                                WINDOW, HAS_TABLE, SHIFTED, MASK_PADDING,
                                PRECISION)
        larger = tl.maximum(largest, tl.max(scores, 1))
        # A row may have no key yet.
        base = tl.where(larger == float('-inf'), 0., larger)
        weights = tl.exp(scores - base[:, None])
        decay = tl.exp(largest - base)
        total = total * decay + tl.sum(weights, 1)
        y = y * decay[:, None] + product(weights, v, PRECISION)
        largest = larger
    total = tl.where(total > 0., total, 1.)  # of rows beyond the window
    y = y / total[:, None]
    store_rows(out + first * C + head * D, y, q_pixel, q_real, C, D, BLOCK_D)
    tl.store(
        lse + (window.to(tl.int64) * HEADS + head) * T + q_token,
        largest + tl.log(total),
        mask=q_token < T)


def count_windows(shape: Sequence[int], window: int) -> int:
    B, H, W = shape[:3]
    return B * -(-H // window) * -(-W // window)


def constants(qkv: Tensor, table: Tensor | None, heads: int, window: int,
              shifts: Sequence[int], mask_padding: bool) -> dict:
    """Collect the constants that kernels are compiled for."""
    H, W, channels = qkv.shape[1:]
    d = channels // (3 * heads)
    padded = H % window != 0 or W % window != 0
    return dict(
        HEADS=heads,
        D=d,
        WINDOW=window,
        BLOCK=min(BLOCK, max(16, triton.next_power_of_2(window**2))),
        BLOCK_D=max(16, triton.next_power_of_2(d)),
        HAS_TABLE=table is not None,
        SHIFTED=any(shifts),
        PADDED=padded,
        MASK_PADDING=padded and mask_padding,
        PRECISION=PRECISION)


def forward(qkv: Tensor, pad: Tensor, table: Tensor | None, heads: int,
            window: int, shifts: Sequence[int], mask_padding: bool,
            scale: float) -> tuple[Tensor, Tensor]:
    """Compute the output and the log-sum-exp of the scores.

    See :func:`hrformer_mm.core.kernels.triton.ops.window_attention`.
    """
    B, H, W, channels = qkv.shape
    const = constants(qkv, table, heads, window, shifts, mask_padding)
    windows, T = count_windows(qkv.shape, window), window**2
    out = qkv.new_empty(B, H, W, channels // 3)
    lse = qkv.new_empty(windows, heads, T, dtype=torch.float32)
    blocks = triton.cdiv(T, const['BLOCK'])
    forward_kernel[(windows * blocks * heads, )](
        qkv, pad, table, out, lse, H, W, *shifts, scale, num_stages=1, **const)
    return out, lse
