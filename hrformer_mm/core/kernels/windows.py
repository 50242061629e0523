# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Fast paths of window attention on a whole map."""
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .bypass import may_bypass
from .cpu import attend_by_pixels, prefers_pixels
from .heads import attend_by_tokens, prefers_tokens
from .kept import keep
from .triton import fused_attention, fuses_attention


def window_tokens(weight: Tensor, hw: Sequence[int],
                  pads: Sequence[Sequence[int]], size: int,
                  shifts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Map the tokens of all windows of an image to pixels and back.

    Args:
        weight: Any tensor on the device of the map.
        hw: Height and width of the map, without padding.
        pads: Padding of each axis.
        size: Height and width of a window.
        shifts: Shift of each axis.

    Returns:
        The pixel of each token, any for padding, [n*t]; the tokens that are
        padding; the token of each pixel, [H*W].
    """
    H, W = (n + sum(pad) for n, pad in zip(hw, pads))
    at = torch.arange(H * W, device=weight.device)
    window, y, x = at // size**2, at // size % size, at % size
    rows, columns = window // (W // size), window % (W // size)
    y, x = (  # from the padded, shifted map to the original one
        (first * size + inner + shift) % n - pad[0]
        for first, inner, shift, n, pad in zip((rows, columns), (y, x), shifts,
                                               (H, W), pads))
    is_pad = (y < 0) | (y >= hw[0]) | (x < 0) | (x >= hw[1])
    pixel = torch.where(is_pad, hw[0] * hw[1], y * hw[1] + x)
    count, order = hw[0] * hw[1], pixel.argsort(stable=True)
    return pixel.clamp(max=count - 1), order[count:], order[:count]


def attend_map(layer: Any, kind: type[nn.Module], x: Tensor,
               pads: Sequence[Sequence[int]],
               shifts: Sequence[int]) -> Tensor | None:
    """Apply window attention to a map [B, H, W, C] if there is a fast path.

    Args:
        layer: ``WindowAttention``.
        kind: Class of ``layer.attn`` that may be bypassed.
        x: Map.
        pads: Padding of each axis.
        shifts: Shift of each axis.

    Returns:
        The map [B, H, W, C], or None for the plain path.
    """
    attn, size, hw = layer.attn, layer.window_size, list(x.shape[1:3])
    if not may_bypass(attn, kind):
        return None
    if fuses_attention(layer, x):
        return fused_attention(attn, x, shifts, layer.mask_padding)
    padded = [n + sum(p) for n, p in zip(hw, pads)]
    is_masked = any(shifts) or (layer.mask_padding and padded != hw)
    if not is_masked and prefers_pixels(x):
        return attend_by_pixels(
            attn, x, partial(layer.partition, pads=pads, shifts=shifts))
    if (any(shifts) or (padded != hw and padded[1] > size)
        ) and prefers_tokens(attn, x):
        indices = keep(window_tokens, [next(layer.parameters())], tuple(hw),
                       pads, size, shifts)
        return attend_by_tokens(attn, x, layer.mask(x), *indices)
    return None
