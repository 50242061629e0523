# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer's blocks with few operators, for export.

:func:`simplify` replaces the core's modules, which are written for readability
and for speed in PyTorch, by the modules below. Their outputs are equal. The
size of a map may be open, a ``torch.SymInt``, where the core would branch on
whether it needs padding.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import attention, blocks


def pad(x: Tensor, pads: Sequence[int]) -> Tensor:
    """Apply ``F.pad``, unless it is known to change nothing."""
    if any(isinstance(n, torch.SymInt) or n for n in pads):
        return F.pad(x, pads)
    return x


class WindowAttention(nn.Module):
    """The core's window attention on a [B, H, W, C] map.

    Queries, keys and values are computed before the window partition, and
    projected after its reversal, so that windows are moved once each way.

    Args:
        source: Module whose parameters are used, without shift and mask.
        fused: Keep attention as one operator, which ONNX has since opset 23;
            otherwise it is decomposed.
    """

    bias: Tensor | None

    def __init__(self, source: attention.WindowAttention, fused: bool):
        super().__init__()
        self.window_size, self.fused = source.window_size, fused
        self.heads = source.attn.heads
        self.qkv, self.proj = source.attn.qkv, source.attn.proj
        self.register_buffer('bias', source.attn.bias())

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        scores = (q * q.shape[-1]**-.5) @ k.transpose(2, 3)
        if self.bias is not None:
            scores = scores + self.bias
        return scores.softmax(3) @ v

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        size, heads, d = self.window_size, self.heads, C // self.heads
        rows, columns = (H + size - 1) // size, (W + size - 1) // size
        pad_h, pad_w = rows * size - H, columns * size - W
        top, left = pad_h // 2, pad_w // 2
        pads = (0, 0, left, pad_w - left, top, pad_h - top)
        x = self.qkv(pad(x, pads))
        x = x.reshape(B, rows, size, columns, size, 3 * heads, d)
        x = x.permute(0, 1, 3, 5, 2, 4, 6)
        x = x.reshape(B * rows * columns, 3 * heads, size * size, d)
        x = self.attend(*x.split(heads, 1))  # [B*n, h, t, d]
        x = x.reshape(B, rows, columns, heads, size, size, d)
        x = x.permute(0, 1, 4, 2, 5, 3, 6)
        x = x.reshape(B, rows * size, columns * size, C)
        return self.proj(pad(x, [-n for n in pads]))


def as_conv(source: blocks.PointwiseConv) -> nn.Conv2d:
    """Return the same 1x1 convolution for [B, C, H, W]."""
    conv = nn.Conv2d(source.in_channels, source.out_channels, 1)
    conv.weight, conv.bias = source.weight, source.bias
    return conv


class FFN(nn.Module):
    """The core's feed-forward network on a [B, H, W, C] map, as convolutions.

    Args:
        source: Module whose layers are used.
    """

    def __init__(self, source: blocks.FFN):
        super().__init__()
        layers = [
            as_conv(m) if isinstance(m, blocks.PointwiseConv) else m
            for m in source.children() if not isinstance(m, nn.Identity)
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def simplify(model: nn.Module, fused: bool = True) -> nn.Module:
    """Replace blocks in the output of :func:`hrformer_mm.deploy.optimize`.

    Args:
        model: Model to change in place.
        fused: See :class:`WindowAttention`.
    """
    for module in model.modules():
        if not isinstance(module, blocks.Block):
            continue
        if not (module.attn.shift or module.attn.mask_padding):
            attn: nn.Module = WindowAttention(module.attn, fused)
            module.add_module('attn', attn)
        if isinstance(module.ffn, blocks.FFN):
            module.add_module('ffn', FFN(module.ffn))
    return model
