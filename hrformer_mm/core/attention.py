# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Self-attention in local windows, also shifted and masked.

Shape comments use B batch, H and W the height and width of a map, C channels,
n windows in a map, t tokens in a window, h heads, d channels of a head.
"""
import math
from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cpu import EXACT, attend_rows, mix_channels, runs_on_cpu


def split_windows(x: Tensor, size: int) -> Tensor:
    """Cut [B, H, W, C] into windows [B*n, size*size, C].

    H and W are multiples of ``size``.
    """
    B, H, W, C = x.shape
    x = x.reshape(B, H // size, size, W // size, size, C)
    return x.transpose(2, 3).reshape(-1, size * size, C)


def join_windows(x: Tensor, size: int, hw: Tuple[int, int]) -> Tensor:
    """Undo :func:`split_windows`: [B*n, size*size, C] to [B, H, W, C]."""
    H, W = hw
    x = x.reshape(-1, H // size, W // size, size, size, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, H, W, x.shape[-1])


def relative_position_index(size: int) -> Tensor:
    """Row of the bias table for each pair of tokens in a window, [t, t]."""
    at = torch.arange(size)
    y, x = at.repeat_interleave(size), at.repeat(size)  # [t]
    dy = y[:, None] - y[None, :] + size - 1  # 0 .. 2*size-2
    dx = x[:, None] - x[None, :] + size - 1
    return dy * (2 * size - 1) + dx


def even_padding(hw: Sequence[int],
                 size: int) -> Tuple[Tuple[int, int], Tuple[int, int]]:
    """Padding before and after each axis, up to a multiple of ``size``."""
    pad_h, pad_w = (-n % size for n in hw)
    return ((pad_h // 2, pad_h - pad_h // 2), (pad_w // 2,
                                               pad_w - pad_w // 2))


def window_pixels(shape: Sequence[int], size: int) -> Tuple[Tensor, Tensor]:
    """Which pixel each token of a [B, H, W] map is, and the other way round.

    Both are counted through the batch, tokens through its windows.

    Returns:
        The pixel of each token, [B*n, t], where the map is padded the count
        of pixels; the token of each pixel, [B*H*W].
    """
    count = math.prod(shape)
    (top, bottom), (left, right) = even_padding(shape[1:], size)
    pixel = torch.arange(count).view(*shape)
    pixel = F.pad(pixel, (left, right, top, bottom), value=count)
    pixel = split_windows(pixel[..., None], size)[..., 0]
    token = pixel.new_empty(count + 1)
    token[pixel.flatten()] = torch.arange(pixel.numel())
    return pixel, token[:count]


def axis_regions(length: int, padding: Tuple[int, int], size: int, shift: int,
                 device: torch.device) -> Tuple[Tensor, Tensor]:
    """Where each row (or column) of a padded and shifted map comes from.

    Returns:
        The side of the wrap-around each row is on, and whether it is padding;
        both [length].
    """
    at = torch.arange(length, device=device)
    wrapped = (at >= length - shift).int()
    source = (at + shift) % length
    is_pad = (source < padding[0]) | (source >= length - padding[1])
    return wrapped, is_pad


def window_mask(hw: Tuple[int, int], pads: Sequence[Tuple[int, int]],
                size: int, shifts: Sequence[int], mask_padding: bool,
                device: torch.device) -> Tensor:
    """Additive attention mask of every window of a padded map, [n, t, t].

    Tokens attend to tokens of the same side of the wrap-around; with
    ``mask_padding`` real tokens do not attend to padding. What padding
    attends to is never used, so it stays free, which keeps rows finite.
    """
    (ry, py), (rx, px) = (
        axis_regions(n, p, size, s, device)
        for n, p, s in zip(hw, pads, shifts))
    region = (ry[:, None] * 2 + rx[None, :])[None, :, :, None]
    region = split_windows(region, size)[..., 0]  # [n, t]
    keep = region[:, :, None] == region[:, None, :]
    if mask_padding:
        is_pad = (py[:, None] | px[None, :])[None, :, :, None]
        is_pad = split_windows(is_pad, size)[..., 0]  # [n, t]
        keep = keep & (is_pad[:, :, None] | ~is_pad[:, None, :])
    return torch.zeros(
        keep.shape, device=device).masked_fill_(~keep, float('-inf'))


def head_padding(channels: int, device: torch.device) -> int:
    """Zeros that fused attention wants after the channels of a head.

    CUDA's kernel that takes a bias asks for multiples of 8; a head of
    HRFormer-B has 39, for which torch would write out all scores instead.
    """
    return -channels % 8 if device.type == 'cuda' else 0


def pad_heads(weight: Tensor, heads: int, padding: int,
              dim: int = 0) -> Tensor:
    """Append zeros to the channels of each head, which lie along ``dim``."""
    if not padding:
        return weight
    weight = weight.movedim(dim, -1).unflatten(-1, (heads, -1))
    return F.pad(weight, (0, padding)).flatten(-2).movedim(-1, dim)


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of a window, [B*n, t, C].

    Args:
        dim: Channels.
        heads: Attention heads.
        window_size: Height and width of a window.
        rel_pos_bias: Add a learned bias per relative position and head.
    """
    fixed_bias: Optional[Tensor]
    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int, window_size: int,
                 rel_pos_bias: bool):
        super().__init__()
        self.heads, self.window_size = heads, window_size
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = None
        self.register_buffer('fixed_bias', None, persistent=False)
        if rel_pos_bias:
            table = torch.empty((2 * window_size - 1)**2, heads)
            self.relative_position_bias_table = nn.Parameter(
                nn.init.trunc_normal_(table, std=.02))
            self.register_buffer(
                'relative_position_index',
                relative_position_index(window_size).flatten(),
                persistent=False)

    def bias(self) -> Optional[Tensor]:
        """Relative position bias of each pair of tokens, [1, h, t, t]."""
        table = self.relative_position_bias_table
        if table is None or self.fixed_bias is not None:
            return self.fixed_bias
        t = self.window_size**2
        bias = table.index_select(0, self.relative_position_index)
        return bias.t().reshape(1, self.heads, t, t)

    def freeze_bias(self):
        """Gather the bias once and for all, for inference."""
        self.fixed_bias = self.bias()

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        N, t, C = x.shape
        h, d = self.heads, C // self.heads
        pad = head_padding(d, x.device)
        qkv = mix_channels(x, pad_heads(self.qkv.weight, 3 * h, pad),
                           pad_heads(self.qkv.bias, 3 * h, pad))
        qkv = qkv.view(N, t, 3, h, d + pad)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B*n, h, t, d]
        bias = self.bias()
        if bias is not None:
            bias = bias.to(q.dtype)  # the table is float32 under autocast
        if mask is not None:
            mask = mask[:, None].to(q.dtype)  # [n, 1, t, t]
            bias = mask if bias is None else bias + mask
            bias = bias.repeat(N // mask.shape[0], 1, 1, 1)
        x = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, scale=d**-.5)
        x = x.transpose(1, 2).reshape(N, t, -1)
        return mix_channels(x, pad_heads(self.proj.weight, h, pad, dim=1),
                            self.proj.bias)

    def takes_rows(self, x: Tensor) -> bool:
        """Whether :meth:`attend_rows` does the same as the forward pass.

        Hooks are called by the forward pass only.
        """
        exact = x.dtype in EXACT or not torch.is_grad_enabled()
        return (exact and runs_on_cpu(x)
                and not (self._forward_hooks or self._forward_pre_hooks))

    def attend_rows(self, x: Tensor, pixel: Tensor, token: Tensor) -> Tensor:
        """Attend in the windows of a map [B, H, W, C], for CPUs.

        Args:
            x: The map.
            pixel: See :func:`window_pixels`.
            token: See there.
        """
        rows = x.reshape(-1, x.shape[-1])
        if pixel.numel() > len(token):  # a row of zeros for padding
            rows = F.pad(rows, (0, 0, 0, 1))
        qkv = mix_channels(rows, self.qkv.weight, self.qkv.bias)
        bias = self.bias()
        if bias is not None:
            bias = bias.to(qkv.dtype)
        y = attend_rows(qkv, bias, pixel, token, self.heads)
        return mix_channels(y, self.proj.weight, self.proj.bias).view(x.shape)


class WindowAttention(nn.Module):
    """Self-attention inside windows of a [B, H, W, C] map (Section 3.2).

    The map is padded with zeros evenly on both sides up to a multiple of the
    window. Padded tokens are attended to like any other, as in the paper's
    code, unless ``mask_padding``.

    Args:
        dim: Channels.
        heads: Attention heads.
        window_size: Height and width of a window.
        rel_pos_bias: Add a learned bias per relative position and head.
        mask_padding: Keep real tokens from attending to padding.
        shift: Rows and columns by which the windows are shifted, cyclically
            and masked, along each axis that holds more than one window.
    """

    def __init__(self,
                 dim: int,
                 heads: int,
                 window_size: int = 7,
                 rel_pos_bias: bool = True,
                 mask_padding: bool = False,
                 shift: int = 0):
        super().__init__()
        self.window_size = window_size
        self.mask_padding, self.shift = mask_padding, shift
        self.attn = Attention(dim, heads, window_size, rel_pos_bias)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[1:3]
        size = self.window_size
        pads = even_padding((H, W), size)
        (top, bottom), (left, right) = pads
        hw = (top + H + bottom, left + W + right)
        padded = hw != (H, W)
        shifts = [self.shift if n > size else 0 for n in hw]
        masked = any(shifts) or (self.mask_padding and padded)
        if not masked and self.attn.takes_rows(x):
            return self.attn.attend_rows(x, *window_pixels(x.shape[:3], size))
        if padded:
            x = F.pad(x, (0, 0, left, right, top, bottom))
        if any(shifts):
            x = x.roll([-s for s in shifts], (1, 2))
        mask = None
        if masked:
            mask = window_mask(hw, pads, size, shifts, self.mask_padding,
                               x.device)
        x = self.attn(split_windows(x, size), mask)  # [B*n, t, C]
        x = join_windows(x, size, hw)
        if any(shifts):
            x = x.roll(shifts, (1, 2))
        return x[:, top:top + H, left:left + W]
