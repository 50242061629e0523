# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Gradients of window attention; see :mod:`.attention`.

Scores are computed again from queries and keys, and the logarithm of the sum
of each softmax. Gradients of the bias and of padding are sums over windows, in
float32 and in a fixed order.
"""
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .attention import (
    compute_scores,
    constants,
    count_windows,
    load_rows,
    locate,
    product,
    store_rows,
)
from .tiles import PROGRAMS


@triton.jit
def gradients(q, k, v, dy, lse, delta, table, scale, head, q_token, k_token,
              q_real, k_real, q_region, k_region, HEADS: tl.constexpr,
              WINDOW: tl.constexpr, HAS_TABLE: tl.constexpr,
              SHIFTED: tl.constexpr, MASK_PADDING: tl.constexpr,
              PRECISION: tl.constexpr):
    """Compute the attention weights and the gradient of the scores.

    ``delta`` is the sum of weights times their gradients for each query; if
    None, all keys are in this block, and it is computed here.
    """
    scores = compute_scores(q, k, table, scale, head, q_token, k_token, q_real,
                            k_real, q_region, k_region, HEADS, WINDOW,
                            HAS_TABLE, SHIFTED, MASK_PADDING, PRECISION)
    weights = tl.exp(scores - lse[:, None])
    d_weights = tl.dot(dy, tl.trans(v), input_precision=PRECISION)
    if delta is None:
        delta = tl.sum(weights * d_weights, 1)
    return weights, weights * (d_weights - delta[:, None])


@triton.jit
def at_queries(values, window, head, token, HEADS: tl.constexpr,
               T: tl.constexpr):
    return values + (window.to(tl.int64) * HEADS + head) * T + token


@triton.jit
def load_lse(lse, window, head, token, HEADS: tl.constexpr, T: tl.constexpr):
    """Load the logarithm of each softmax sum; inf makes weights zero."""
    return tl.load(
        at_queries(lse, window, head, token, HEADS, T),
        mask=token < T,
        other=float('inf'))


@triton.jit
def load_delta(delta, window, head, token, HEADS: tl.constexpr,
               T: tl.constexpr):
    return tl.load(
        at_queries(delta, window, head, token, HEADS, T),
        mask=token < T,
        other=0.)


@triton.jit
def store_pads(d_pad, pad_k, pad_v, C: tl.constexpr, D: tl.constexpr,
               BLOCK_D: tl.constexpr):
    """Store the gradient of padding; that of its queries is zero."""
    channel = tl.arange(0, BLOCK_D)
    tl.store(d_pad + channel, pad_k * 0., mask=channel < D)
    tl.store(d_pad + C + channel, pad_k, mask=channel < D)
    tl.store(d_pad + 2 * C + channel, pad_v, mask=channel < D)


@triton.jit
def backward_window_kernel(
        qkv, pad, table, dy, lse, d_qkv, d_pad, d_bias, H, W, windows, shift_h,
        shift_w, scale, chunks, HEADS: tl.constexpr, D: tl.constexpr,
        WINDOW: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
        HAS_TABLE: tl.constexpr, SHIFTED: tl.constexpr, PADDED: tl.constexpr,
        MASK_PADDING: tl.constexpr, PRECISION: tl.constexpr):
    """Compute all gradients of windows that fit into one block of tokens.

    A program serves every ``chunks``-th window, and accumulates the gradients
    of the bias and of padding in registers.
    """
    T: tl.constexpr = WINDOW * WINDOW
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    chunk = tl.program_id(0) // HEADS
    token = tl.arange(0, BLOCK)
    pads = pad + head * D
    per_image = tl.cdiv(H, WINDOW) * tl.cdiv(W, WINDOW)
    sum_bias = tl.zeros([BLOCK, BLOCK], tl.float32)
    pad_k = tl.zeros([BLOCK_D], tl.float32)
    pad_v = tl.zeros([BLOCK_D], tl.float32)
    for i in range(tl.cdiv(windows - chunk, chunks)):
        window = chunk + i * chunks
        first = (window // per_image).to(tl.int64) * H * W
        rows = qkv + first * (3 * C) + head * D
        grads = d_qkv + first * (3 * C) + head * D
        pixel, real, region = locate(window, token, H, W, shift_h, shift_w,
                                     WINDOW)
        q = load_rows(rows, pads, pixel, real, 3 * C, D, BLOCK_D, PADDED)
        k = load_rows(rows + C, pads + C, pixel, real, 3 * C, D, BLOCK_D,
                      PADDED)
        v = load_rows(rows + 2 * C, pads + 2 * C, pixel, real, 3 * C, D,
                      BLOCK_D, PADDED)
        d_y = load_rows(dy + first * C + head * D, pads, pixel, real, C, D,
                        BLOCK_D, False)
        weights, d_scores = gradients(
            q, k, v, d_y, load_lse(lse, window, head, token, HEADS, T), None,
            table, scale, head, token, token, real, real, region, region,
            HEADS, WINDOW, HAS_TABLE, SHIFTED, MASK_PADDING, PRECISION)
        sum_bias += d_scores
        d_v = product(tl.trans(weights), d_y, PRECISION)
        store_rows(grads + 2 * C, d_v, pixel, real, 3 * C, D, BLOCK_D)
        d_k = scale * product(tl.trans(d_scores), q, PRECISION)
        store_rows(grads + C, d_k, pixel, real, 3 * C, D, BLOCK_D)
        d_q = scale * product(d_scores, k, PRECISION)
        store_rows(grads, d_q, pixel, real, 3 * C, D, BLOCK_D)
        if PADDED:
            pad_k += tl.sum(tl.where(real[:, None], 0., d_k), 0)
            pad_v += tl.sum(tl.where(real[:, None], 0., d_v), 0)
    if PADDED:
        store_pads(d_pad + chunk * (3 * C) + head * D, pad_k, pad_v, C, D,
                   BLOCK_D)
    if HAS_TABLE:
        at = tl.program_id(0).to(tl.int64) * (T * T)
        tl.store(
            d_bias + at + token[:, None] * T + token[None, :],
            sum_bias,
            mask=(token < T)[:, None] & (token < T)[None, :])


@triton.jit
def backward_queries_kernel(
        qkv, pad, table, dy, lse, delta, d_qkv, H, W, shift_h, shift_w, scale,
        HEADS: tl.constexpr, D: tl.constexpr,
        WINDOW: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
        HAS_TABLE: tl.constexpr, SHIFTED: tl.constexpr, PADDED: tl.constexpr,
        MASK_PADDING: tl.constexpr, PRECISION: tl.constexpr):
    """Compute the gradient of the queries of large windows, and ``delta``.

    A program serves one block of queries, and loops twice over all keys. The
    sum of output times gradient would be the same as ``delta``, but for the
    rounding of the output to half precision.
    """
    T: tl.constexpr = WINDOW * WINDOW
    BLOCKS: tl.constexpr = (T + BLOCK - 1) // BLOCK
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    block = tl.program_id(0) // HEADS % BLOCKS
    window = tl.program_id(0) // (HEADS * BLOCKS)
    image = window // (tl.cdiv(H, WINDOW) * tl.cdiv(W, WINDOW))
    first = image.to(tl.int64) * H * W
    rows = qkv + first * (3 * C) + head * D
    grads = d_qkv + first * (3 * C) + head * D
    d_outs = dy + first * C + head * D
    pads = pad + head * D
    token = block * BLOCK + tl.arange(0, BLOCK)
    pixel, real, region = locate(window, token, H, W, shift_h, shift_w, WINDOW)
    q = load_rows(rows, pads, pixel, real, 3 * C, D, BLOCK_D, PADDED)
    d_y = load_rows(d_outs, pads, pixel, real, C, D, BLOCK_D, False)
    sums = load_lse(lse, window, head, token, HEADS, T)
    total = tl.zeros([BLOCK], tl.float32)
    d_q = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for step in range(0, 2 * BLOCKS):
        k_token = step % BLOCKS * BLOCK + tl.arange(0, BLOCK)
        k_pixel, k_real, k_region = locate(window, k_token, H, W, shift_h,
                                           shift_w, WINDOW)
        k = load_rows(rows + C, pads + C, k_pixel, k_real, 3 * C, D, BLOCK_D,
                      PADDED)
        v = load_rows(rows + 2 * C, pads + 2 * C, k_pixel, k_real, 3 * C, D,
                      BLOCK_D, PADDED)
        # In the first loop total is unfinished, and the sum of these is it.
        is_first = step < BLOCKS
        _, d_scores = gradients(
            q, k, v, d_y, sums, tl.where(is_first, 0., total), table, scale,
            head, token, k_token, real, k_real, region, k_region, HEADS,
            WINDOW, HAS_TABLE, SHIFTED, MASK_PADDING, PRECISION)
        if is_first:
            total += tl.sum(d_scores, 1)
        else:
            d_q += product(d_scores, k, PRECISION)
    store_rows(grads, d_q * scale, pixel, real, 3 * C, D, BLOCK_D)
    tl.store(
        at_queries(delta, window, head, token, HEADS, T),
        total,
        mask=token < T)


@triton.jit
def backward_keys_kernel(
        qkv, pad, table, dy, lse, delta, d_qkv, d_pad, H, W, shift_h, shift_w,
        scale, HEADS: tl.constexpr, D: tl.constexpr,
        WINDOW: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
        HAS_TABLE: tl.constexpr, SHIFTED: tl.constexpr, PADDED: tl.constexpr,
        MASK_PADDING: tl.constexpr, PRECISION: tl.constexpr):
    """Compute the gradient of the keys and values of large windows.

    A program serves one block of keys, for all queries.
    """
    T: tl.constexpr = WINDOW * WINDOW
    BLOCKS: tl.constexpr = (T + BLOCK - 1) // BLOCK
    C: tl.constexpr = HEADS * D
    head = tl.program_id(0) % HEADS
    block = tl.program_id(0) // HEADS % BLOCKS
    window = tl.program_id(0) // (HEADS * BLOCKS)
    image = window // (tl.cdiv(H, WINDOW) * tl.cdiv(W, WINDOW))
    first = image.to(tl.int64) * H * W
    rows = qkv + first * (3 * C) + head * D
    grads = d_qkv + first * (3 * C) + head * D
    d_outs = dy + first * C + head * D
    pads = pad + head * D
    token = block * BLOCK + tl.arange(0, BLOCK)
    pixel, real, region = locate(window, token, H, W, shift_h, shift_w, WINDOW)
    k = load_rows(rows + C, pads + C, pixel, real, 3 * C, D, BLOCK_D, PADDED)
    v = load_rows(rows + 2 * C, pads + 2 * C, pixel, real, 3 * C, D, BLOCK_D,
                  PADDED)
    d_k = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    d_v = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for start in range(0, T, BLOCK):
        q_token = start + tl.arange(0, BLOCK)
        q_pixel, q_real, q_region = locate(window, q_token, H, W, shift_h,
                                           shift_w, WINDOW)
        q = load_rows(rows, pads, q_pixel, q_real, 3 * C, D, BLOCK_D, PADDED)
        d_y = load_rows(d_outs, pads, q_pixel, q_real, C, D, BLOCK_D, False)
        weights, d_scores = gradients(
            q, k, v, d_y, load_lse(lse, window, head, q_token, HEADS, T),
            load_delta(delta, window, head, q_token, HEADS, T), table, scale,
            head, q_token, token, q_real, real, q_region, region, HEADS,
            WINDOW, HAS_TABLE, SHIFTED, MASK_PADDING, PRECISION)
        d_v += product(tl.trans(weights), d_y, PRECISION)
        d_k += product(tl.trans(d_scores), q, PRECISION)
    d_k *= scale
    store_rows(grads + C, d_k, pixel, real, 3 * C, D, BLOCK_D)
    store_rows(grads + 2 * C, d_v, pixel, real, 3 * C, D, BLOCK_D)
    if PADDED:
        at = d_pad + (window.to(tl.int64) * BLOCKS + block) * (3 * C)
        store_pads(at + head * D, tl.sum(tl.where(real[:, None], 0., d_k), 0),
                   tl.sum(tl.where(real[:, None], 0., d_v), 0), C, D, BLOCK_D)


@triton.jit
def backward_bias_kernel(
        qkv, pad, table, dy, lse, delta, d_bias, H, W, windows, shift_h,
        shift_w, scale, chunks, HEADS: tl.constexpr, D: tl.constexpr,
        WINDOW: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
        HAS_TABLE: tl.constexpr, SHIFTED: tl.constexpr, PADDED: tl.constexpr,
        MASK_PADDING: tl.constexpr, PRECISION: tl.constexpr):
    """Sum the gradient of one block of the bias over windows.

    Scores are computed again, because the gradient of the bias of a large
    window does not fit into registers, and atomic sums are not reproducible.
    """
    T: tl.constexpr = WINDOW * WINDOW
    BLOCKS: tl.constexpr = (T + BLOCK - 1) // BLOCK
    C: tl.constexpr = HEADS * D
    q_block = tl.program_id(1) // BLOCKS
    k_block = tl.program_id(1) % BLOCKS
    head = tl.program_id(0) % HEADS
    chunk = tl.program_id(0) // HEADS
    q_token = q_block * BLOCK + tl.arange(0, BLOCK)
    k_token = k_block * BLOCK + tl.arange(0, BLOCK)
    pads = pad + head * D
    per_image = tl.cdiv(H, WINDOW) * tl.cdiv(W, WINDOW)
    sum_bias = tl.zeros([BLOCK, BLOCK], tl.float32)
    for i in range(tl.cdiv(windows - chunk, chunks)):
        window = chunk + i * chunks
        first = (window // per_image).to(tl.int64) * H * W
        rows = qkv + first * (3 * C) + head * D
        q_pixel, q_real, q_region = locate(window, q_token, H, W, shift_h,
                                           shift_w, WINDOW)
        k_pixel, k_real, k_region = locate(window, k_token, H, W, shift_h,
                                           shift_w, WINDOW)
        q = load_rows(rows, pads, q_pixel, q_real, 3 * C, D, BLOCK_D, PADDED)
        k = load_rows(rows + C, pads + C, k_pixel, k_real, 3 * C, D, BLOCK_D,
                      PADDED)
        v = load_rows(rows + 2 * C, pads + 2 * C, k_pixel, k_real, 3 * C, D,
                      BLOCK_D, PADDED)
        d_y = load_rows(dy + first * C + head * D, pads, q_pixel, q_real, C, D,
                        BLOCK_D, False)
        _, d_scores = gradients(
            q, k, v, d_y, load_lse(lse, window, head, q_token, HEADS, T),
            load_delta(delta, window, head, q_token, HEADS, T), table, scale,
            head, q_token, k_token, q_real, k_real, q_region, k_region, HEADS,
            WINDOW, HAS_TABLE, SHIFTED, MASK_PADDING, PRECISION)
        sum_bias += d_scores
    at = tl.program_id(0).to(tl.int64) * (T * T)
    tl.store(
        d_bias + at + q_token[:, None] * T + k_token[None, :],
        sum_bias,
        mask=(q_token < T)[:, None] & (k_token < T)[None, :])


@triton.jit
def backward_table_kernel(d_bias, d_table, HEADS: tl.constexpr,
                          WINDOW: tl.constexpr, BLOCK_R: tl.constexpr,
                          BLOCK_T: tl.constexpr):
    """Sum the gradient of the bias [h, T, T] over pairs of equal offset."""
    T: tl.constexpr = WINDOW * WINDOW
    side: tl.constexpr = 2 * WINDOW - 1
    head = tl.program_id(0) % HEADS
    row = tl.program_id(0) // HEADS * BLOCK_R + tl.arange(0, BLOCK_R)
    q = tl.arange(0, BLOCK_T)[None, :]
    y = q // WINDOW - (row // side - (WINDOW - 1))[:, None]  # of the key
    x = q % WINDOW - (row % side - (WINDOW - 1))[:, None]
    inside = (y >= 0) & (y < WINDOW) & (x >= 0) & (x < WINDOW) & (q < T)
    pairs = tl.load(
        d_bias + (head * T + q) * T + y * WINDOW + x, mask=inside, other=0.)
    tl.store(
        d_table + row * HEADS + head,
        tl.sum(pairs, 1).to(d_table.dtype.element_ty),
        mask=row < side * side)


# Products of 64x64 tiles in float32 need the registers of eight warps.
# Without pipelining, tiles of all products fit into 100 KB of shared memory.
BACKWARD: dict[str, int] = dict(num_warps=8, num_stages=1)


def backward(dy: Tensor, qkv: Tensor, pad: Tensor, table: Tensor | None,
             lse: Tensor, heads: int, window: int, shifts: Sequence[int],
             mask_padding: bool,
             scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of ``qkv``, ``pad`` and ``table``.

    The last is empty without a table.
    """
    const = constants(qkv, table, heads, window, shifts, mask_padding)
    H, W = qkv.shape[1:3]
    windows, T = count_windows(qkv.shape, window), window**2
    blocks = triton.cdiv(T, const['BLOCK'])
    chunks = min(windows, triton.cdiv(PROGRAMS, heads * blocks**2))
    d_qkv, scalars = torch.empty_like(qkv), (*shifts, scale)
    pads = chunks if blocks == 1 else windows * blocks
    d_pads = qkv.new_empty(
        pads if const['PADDED'] else 0, len(pad), dtype=torch.float32)
    d_bias = lse.new_empty(0 if table is None else chunks, heads, T, T)
    if blocks == 1:
        backward_window_kernel[(chunks * heads, )](
            qkv, pad, table, dy, lse, d_qkv, d_pads, d_bias, H, W, windows,
            *scalars, chunks, **BACKWARD, **const)
    else:
        delta, grid = torch.empty_like(lse), (windows * blocks * heads, )
        backward_queries_kernel[grid](qkv, pad, table, dy, lse, delta, d_qkv,
                                      H, W, *scalars, **BACKWARD, **const)
        backward_keys_kernel[grid](qkv, pad, table, dy, lse, delta, d_qkv,
                                   d_pads, H, W, *scalars, **BACKWARD, **const)
        if table is not None:
            backward_bias_kernel[(chunks * heads, blocks**2)](
                qkv, pad, table, dy, lse, delta, d_bias, H, W, windows,
                *scalars, chunks, **BACKWARD, **const)
    d_table = pad.new_empty(0) if table is None else torch.empty_like(table)
    if table is not None:
        backward_table_kernel[(triton.cdiv(len(table), 16) * heads, )](
            d_bias.sum(0),
            d_table,
            heads,
            window,
            BLOCK_R=16,
            BLOCK_T=triton.next_power_of_2(T))
    return d_qkv, d_pads.sum(0).to(pad.dtype), d_table
