# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer's blocks with few operators, for export.

:func:`simplify` replaces the core's modules, which are written for readability
and for speed in PyTorch, by the modules below. Their outputs are equal. The
size of a map may be open, a ``torch.SymInt``, where the core would branch on
whether it needs padding.
"""
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import attention, blocks
from ..core.hrformer import TransformerBranch


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


def as_conv(source: nn.Conv2d | nn.Linear) -> nn.Conv2d:
    """Return the same 1x1 convolution for [B, C, H, W]."""
    c_out, c_in = source.weight.shape[:2]
    conv = nn.Conv2d(c_in, c_out, 1)
    weight = source.weight.reshape(c_out, c_in, 1, 1)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = source.bias
    return conv


def as_convolutions(source: nn.Module) -> nn.Sequential | None:
    """Return a feed-forward network as convolutions on [B, C, H, W].

    ``None`` if it is not one of the core's.
    """
    layers = [m for m in source.children() if not isinstance(m, nn.Identity)]
    if type(source) is blocks.MLP:
        if not all(type(m) in (nn.Linear, nn.GELU) for m in layers):
            return None
    elif type(source) is not blocks.FFN:
        return None
    pointwise = (blocks.PointwiseConv, nn.Linear)
    return nn.Sequential(
        *(as_conv(m) if isinstance(m, pointwise) else m for m in layers))


def as_attention(source: nn.Module, fused: bool) -> nn.Module:
    """Return the module above, or the same if it has shifts or masks."""
    if source.shift or source.mask_padding:
        return source
    return WindowAttention(cast(attention.WindowAttention, source), fused)


class Block(nn.Module):
    """The core's block on a [B, C, H, W] map.

    The residuals have the layout of the convolutions, so that runtimes add
    them in the same pass, and norms see [B, H*W, C], as OpenVINO decomposes a
    layer norm of four axes. Both together make OpenVINO a third faster.

    Args:
        source: Block whose parameters are used.
        ffn: Its feed-forward network for [B, C, H, W].
        fused: See :class:`WindowAttention`.
    """

    def __init__(self, source: blocks.Block, ffn: nn.Module, fused: bool):
        super().__init__()
        self.norm1, self.norm2, self.ffn = source.norm1, source.norm2, ffn
        self.attn = as_attention(source.attn, fused)

    def normalize(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Normalize [B, C, H, W] and return [B, H, W, C]."""
        B, C, H, W = x.shape
        x = x.permute(0, 2, 3, 1).reshape(B, H * W, C)
        return norm(x).reshape(B, H, W, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attn(self.normalize(self.norm1, x))
        x = x + y.permute(0, 3, 1, 2)
        y = self.normalize(self.norm2, x)
        return x + self.ffn(y.permute(0, 3, 1, 2))


def as_graph(source: TransformerBranch, fused: bool) -> nn.Module:
    """Return a branch of the blocks above, or the same if one is another's."""
    found = [(m, as_convolutions(m.ffn)) for m in source
             if type(m) is blocks.Block]
    if len(found) < len(source) or not all(ffn for _, ffn in found):
        return source
    return nn.Sequential(*(Block(m, ffn, fused) for m, ffn in found if ffn))


def simplify(model: nn.Module, fused: bool = True) -> nn.Module:
    """Replace branches in the output of :func:`hrformer_mm.deploy.optimize`.

    Of blocks that are somewhere else, as in Swin, or that someone changed,
    only the attention is replaced.

    Args:
        model: Model to change in place.
        fused: See :class:`WindowAttention`.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, TransformerBranch):
                module.add_module(name, as_graph(child, fused))
    for module in list(model.modules()):
        if isinstance(module, blocks.Block):
            module.add_module('attn', as_attention(module.attn, fused))
    return model
