# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Attention, and the layers around it, with channels split into heads.

Shape comments use t tokens, h heads, d channels of a head.
"""
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..versions import is_compiling
from .bypass import may_bypass
from .cpu import linear, runs_on_cpu
from .kept import keep, layer_weights, may_keep, product_dtype


def head_padding(channels: int, device: torch.device) -> int:
    """Return the number of zeros to append to the channels of a head.

    CUDA's fused kernel with a bias requires multiples of 8; a head of
    HRFormer-B has 39, for which PyTorch would materialize all scores.
    """
    return -channels % 8 if device.type == 'cuda' else 0


def pad_heads(weight: Tensor, heads: int, padding: int, dim: int,
              dtype: torch.dtype) -> Tensor:
    """Append zeros to the channels of each head, which lie along ``dim``."""
    weight = weight.to(dtype).movedim(dim, -1).unflatten(-1, (heads, -1))
    return F.pad(weight, (0, padding)).flatten(-2).movedim(-1, dim)


def to_heads(layer: Any, x: Tensor, heads: int, d: int) -> Tensor:
    """Compute ``layer(x)`` split into heads, [..., t, heads, d].

    The channels of each head may be padded with zeros: padding the weights is
    cheaper than padding the outputs.
    """
    padding = head_padding(d, x.device)
    if padding and may_bypass(layer, nn.Linear):
        weight, bias = layer.weight, layer.bias
        dtype = product_dtype(weight)
        weight = keep(pad_heads, (weight, ), heads, padding, 0, dtype)
        if bias is not None:
            bias = keep(pad_heads, (bias, ), heads, padding, 0, dtype)
        y = F.linear(x, weight, bias)
    else:
        y = linear(layer, x)
    return y.unflatten(-1, (heads, -1))


def from_heads(layer: Any, x: Tensor, d: int) -> Tensor:
    """Apply ``layer`` to the first d channels of all heads.

    Maps [..., t, h, d], with or without zeros after d, to [..., t, h*d].
    """
    heads, padding = x.shape[-2], x.shape[-1] - d
    if padding and may_bypass(layer, nn.Linear):
        weight, bias = layer_weights(layer)
        weight = keep(pad_heads, (layer.weight, ), heads, padding, 1,
                      product_dtype(layer.weight))
        return F.linear(x.flatten(-2), weight, bias)
    return linear(layer, x[..., :d].flatten(-2) if padding else x.flatten(-2))


def prefers_tokens(module: nn.Module, x: Tensor) -> bool:
    """Whether :func:`attend_by_tokens` makes fewer copies, with kept indices.
    """
    return not (is_compiling() or torch.is_grad_enabled() or runs_on_cpu(x)
                ) and may_keep([next(module.parameters(), None)])


def attend_by_tokens(attn: Any, x: Tensor, mask: Tensor | None, pixel: Tensor,
                     padding: Tensor, token: Tensor) -> Tensor:
    """Apply window attention to a map [B, H, W, C], and return a map.

    One copy pads, shifts and splits the map; another one undoes it before the
    projection, which needs no padding.

    Args:
        attn: ``Attention`` that may be bypassed.
        x: Map; no gradient is computed.
        mask: Mask of the windows, if any.
        pixel: Pixel of each token of an image, [n*t]; any for padding.
        padding: Tokens that are padding.
        token: Token of each pixel, [H*W].
    """
    B, H, W, C = x.shape
    windows = x.reshape(B, H * W, C).index_select(1, pixel)
    if len(padding):
        windows.index_fill_(1, padding, 0)

    def join(y: Tensor) -> Tensor:  # [B*n, t, h, d] to [B, H*W, h, d]
        return y.reshape(B, -1, *y.shape[2:]).index_select(1, token)

    y = attn(windows.view(-1, attn.window_size**2, C), mask, join)
    return y.view(x.shape)


def look_up_bias(table: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Look up rows of a table [L, h], one for each index, [1, h, t, T]."""
    # One launch, without a transposing copy.
    bias = table.to(dtype).t().index_select(1, index.flatten())
    return bias.view(1, -1, *index.shape)


def gather_bias(table: Tensor, index: Tensor,
                dtype: torch.dtype | None) -> Tensor:
    """Compute the bias of every pair of tokens, [1, h, t, T] or [1, h, t, t].

    Args:
        table: Bias of each relative position and head.
        index: Row of the table for each pair, [t, T], the last columns unused.
        dtype: Type of the bias, by default that of the table.
    """
    dtype = dtype or table.dtype
    if not runs_on_cpu(table):
        return keep(look_up_bias, (table, index), dtype)
    t = len(index)
    bias = table.index_select(0, index[:, :t].flatten())
    return bias.t().reshape(1, -1, t, t).to(dtype)


def attention(q: Tensor,
              k: Tensor,
              v: Tensor,
              bias: Tensor | None = None,
              d: int | None = None) -> Tensor:
    """Compute softmax(q k^T / sqrt(d) + bias) v.

    Args:
        q: Queries [..., t, d]; the channels may be padded with zeros.
        k: Keys, likewise.
        v: Values, likewise.
        bias: Bias of the scores; -inf masks them.
        d: Number of channels of a head without padding, by default all.
    """
    d = q.shape[-1] if d is None else d
    padding = head_padding(q.shape[-1], q.device)
    if padding:
        q, k, v = (F.pad(x, (0, padding)) for x in (q, k, v))
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, scale=d**-.5)
