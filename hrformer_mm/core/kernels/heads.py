# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Attention, and the layers around it, with channels split into heads.

Shape comments use t tokens, h heads, d channels of a head.
"""
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bypass import may_bypass
from .cpu import linear


def head_padding(channels: int, device: torch.device) -> int:
    """Return the number of zeros to append to the channels of a head.

    CUDA's fused kernel with a bias requires multiples of 8; a head of
    HRFormer-B has 39, for which PyTorch would materialize all scores.
    """
    return -channels % 8 if device.type == 'cuda' else 0


def pad_heads(weight: Tensor, heads: int, padding: int,
              dim: int = 0) -> Tensor:
    """Append zeros to the channels of each head, which lie along ``dim``."""
    weight = weight.movedim(dim, -1).unflatten(-1, (heads, -1))
    return F.pad(weight, (0, padding)).flatten(-2).movedim(-1, dim)


def to_heads(layer: Any, x: Tensor, heads: int, d: int) -> Tensor:
    """Compute ``layer(x)`` split into heads, [..., t, heads, d].

    The channels of each head may be padded with zeros: padding the weights is
    cheaper than padding the outputs.
    """
    padding = head_padding(d, x.device)
    if padding and may_bypass(layer, nn.Linear):
        weight, bias = layer.weight, layer.bias
        weight = pad_heads(weight, heads, padding)
        if bias is not None:
            bias = pad_heads(bias, heads, padding)
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
        weight = pad_heads(layer.weight, heads, padding, dim=1)
        return F.linear(x.flatten(-2), weight, layer.bias)
    return linear(layer, x[..., :d].flatten(-2) if padding else x.flatten(-2))


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
    if bias is not None:
        bias = bias.to(q.dtype)  # parameters are float32 under autocast
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, scale=d**-.5)
