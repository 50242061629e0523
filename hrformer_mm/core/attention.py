# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Self-attention in local windows (Section 3.2), with shifts and masks.

Shape comments use B batch, H and W the height and width of a map, C channels,
n windows in a map, t tokens in a window, h heads, d channels of a head.
"""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels

Pads = tuple[tuple[int, int], tuple[int, int]]  # before and after each axis


def split_windows(x: Tensor, size: int) -> Tensor:
    """Split [B, H, W, C] into windows [B*n, size*size, C].

    H and W are multiples of ``size``.
    """
    B, H, W, C = x.shape
    x = x.reshape(B, H // size, size, W // size, size, C)
    return x.transpose(2, 3).reshape(-1, size * size, C)


def join_windows(x: Tensor, size: int, hw: Sequence[int]) -> Tensor:
    """Undo :func:`split_windows`: [B*n, size*size, C] to [B, H, W, C]."""
    H, W = hw
    x = x.reshape(-1, H // size, W // size, size, size, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, H, W, x.shape[-1])


def relative_position_index(size: int) -> Tensor:
    """Compute the row of the bias table for each pair of tokens, [t, t]."""
    at = torch.arange(size)
    y, x = at.repeat_interleave(size), at.repeat(size)  # [t]
    dy = y[:, None] - y[None, :] + size - 1  # 0 .. 2*size-2
    dx = x[:, None] - x[None, :] + size - 1
    return dy * (2 * size - 1) + dx


def padded_index(size: int) -> Tensor:
    """Compute :func:`relative_position_index` with whole rows, [t, T].

    T is t, rounded up to a multiple of 8: attention kernels read the bias of a
    token in aligned pieces, and would copy one that is not.
    """
    index = relative_position_index(size)
    return F.pad(index, (0, -len(index) % 8))


def even_padding(hw: Sequence[int], size: int) -> Pads:
    """Compute the padding of each axis up to a multiple of ``size``."""
    pad_h, pad_w = [-n % size for n in hw]
    return ((pad_h // 2, pad_h - pad_h // 2), (pad_w // 2,
                                               pad_w - pad_w // 2))


def pad_and_shift(x: Tensor, pads: Pads, shifts: Sequence[int]) -> Tensor:
    """Pad a map [B, H, W, C] with zeros, then roll it up and to the left."""
    (top, bottom), (left, right) = pads
    if top or bottom or left or right:
        x = F.pad(x, (0, 0, left, right, top, bottom))
    return x.roll([-s for s in shifts], (1, 2)) if any(shifts) else x


def axis_regions(length: int, padding: tuple[int, int], size: int, shift: int,
                 device: torch.device) -> tuple[Tensor, Tensor]:
    """Compute the region of each row (or column) of a padded, shifted map.

    Returns:
        For each row the side of the wrap-around, and whether it is padding;
        both [length].
    """
    at = torch.arange(length, device=device)
    wrapped = (at >= length - shift).int()
    source = (at + shift) % length
    is_pad = (source < padding[0]) | (source >= length - padding[1])
    return wrapped, is_pad


def window_mask(hw: Sequence[int], pads: Pads, size: int,
                shifts: Sequence[int], mask_padding: bool,
                device: torch.device) -> Tensor:
    """Compute the additive mask of every window of a padded map, [n, t, t].

    Tokens attend to tokens on the same side of the wrap-around; with
    ``mask_padding`` real tokens do not attend to padding. Padding may attend
    to all tokens, which keeps its rows finite; its outputs are dropped.
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


class Attention(nn.Module):
    """Multi-head self-attention among the tokens of a window, [B*n, t, C].

    Args:
        dim: Number of channels.
        heads: Number of attention heads.
        window_size: Height and width of a window.
        rel_pos_bias: Add a learned bias per relative position and head.
    """
    fixed_bias: Tensor | None
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
                padded_index(window_size),
                persistent=False)

    def bias(self, dtype: torch.dtype | None = None) -> Tensor | None:
        """Compute the relative position bias of token pairs, [1, h, t, t].

        Args:
            dtype: Type of the bias, by default that of its table.
        """
        bias = self.fixed_bias
        if bias is not None:
            bias = bias.to(dtype or bias.dtype)[None]
        elif self.relative_position_bias_table is not None:
            bias = kernels.gather_bias(self.relative_position_bias_table,
                                       self.relative_position_index, dtype)
        return None if bias is None else bias[..., :self.window_size**2]

    def freeze_bias(self):
        """Gather the bias from its table once, for inference."""
        if self.relative_position_bias_table is not None:
            # 3-D, as channels-last memory format would transpose 4-D buffers.
            self.fixed_bias = kernels.gather_bias(
                self.relative_position_bias_table,
                self.relative_position_index, None)[0]

    def forward(self, x: Tensor, mask: Tensor | None = None,
                join: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Attend among tokens.

        Args:
            x: Tokens, [B*n, t, C].
            mask: Mask of each window of an image, [n, t, t].
            join: Function applied to [B*n, t, h, d] before the projection.
        """
        d = x.shape[-1] // self.heads
        qkv = kernels.to_heads(self.qkv, x, 3 * self.heads, d)
        q, k, v = qkv.transpose(1, 2).chunk(3, dim=1)  # [B*n, h, t, d]
        bias = self.bias(q.dtype)
        if mask is not None:
            mask = mask[:, None].to(q.dtype)  # [n, 1, t, t]
            bias = mask if bias is None else bias + mask
            bias = bias.repeat(len(x) // len(mask), 1, 1, 1)
        x = kernels.attention(q, k, v, bias, d)
        x = x.transpose(1, 2)  # [B*n, t, h, d]
        return kernels.from_heads(self.proj, join(x) if join else x, d)


class WindowAttention(nn.Module):
    """Self-attention inside windows of a [B, H, W, C] map (Section 3.2).

    The map is padded with zeros evenly on both sides up to a multiple of the
    window. Tokens attend to padding like to other tokens, as in the paper's
    code, unless ``mask_padding`` is set.

    Args:
        dim: Number of channels.
        heads: Number of attention heads.
        window_size: Height and width of a window.
        rel_pos_bias: Add a learned bias per relative position and head.
        mask_padding: Prevent real tokens from attending to padding.
        shift: Number of rows and columns by which the windows are shifted
            cyclically, with a mask, along each axis with several windows.
    """
    kernel_choice: str | None = None  # see kernels.set_kernels

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

    def partition(self, x: Tensor, pads: Pads,
                  shifts: Sequence[int]) -> Tensor:
        """Pad, shift and split a map, [B, H, W, C] to [B*n, t, C]."""
        return split_windows(pad_and_shift(x, pads, shifts), self.window_size)

    def layout(self, x: Tensor) -> tuple[Pads, list[int], tuple[int, ...]]:
        """Compute the padding, padded length and shift of both axes."""
        pads = even_padding(x.shape[1:3], self.window_size)
        hw = [n + sum(p) for n, p in zip(x.shape[1:3], pads)]
        return pads, hw, tuple(
            self.shift if n > self.window_size else 0 for n in hw)

    def mask(self, x: Tensor) -> Tensor | None:
        """Compute the mask of every window, [n, t, t], if there is one."""
        pads, hw, shifts = self.layout(x)
        if any(shifts) or (self.mask_padding and hw != [*x.shape[1:3]]):
            return window_mask(hw, pads, self.window_size, shifts,
                               self.mask_padding, x.device)
        return None

    def forward(self, x: Tensor) -> Tensor:
        pads, hw, shifts = self.layout(x)
        y = kernels.attend_map(self, Attention, x, pads, shifts)
        if y is not None:
            return y
        H, W = x.shape[1:3]
        mask = self.mask(x)
        x = self.attn(self.partition(x, pads, shifts), mask)  # [B*n, t, C]
        x = join_windows(x, self.window_size, hw)
        if any(shifts):
            x = x.roll(shifts, (1, 2))
        (top, _), (left, _) = pads
        return x[:, top:top + H, left:left + W]
