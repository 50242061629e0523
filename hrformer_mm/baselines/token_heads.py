# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Transformer encoders that other papers put on a convolutional stem.

TransPose (Yang et al., ICCV 2021, https://arxiv.org/abs/2012.14214) and
TokenPose (Li et al., ICCV 2021, https://arxiv.org/abs/2104.03516), which
Table 3 compares HRFormer with. Their stem is HRNet-W48 up to stage 3. Letters:
B batch, C channels, H and W of the map, K key points.
"""
import math
from typing import Iterable, Sequence, Tuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.positions import sine_position


class PositionedLayer(nn.TransformerEncoderLayer):
    """An encoder layer that adds the position to queries and keys."""

    def forward(  # type: ignore[override]
            self, x: Tensor, position: Tensor) -> Tensor:
        q = x + position
        attended = self.self_attn(q, q, x, need_weights=False)[0]
        x = self.norm1(x + self.dropout1(attended))
        hidden = self.dropout(self.activation(self.linear1(x)))
        return self.norm2(x + self.dropout2(self.linear2(hidden)))


class TokenAttention(nn.Module):
    """Self-attention on [B, N, C] whose projections have no biases.

    Only the one of the output has. Parameters are named as in
    ``nn.MultiheadAttention``, which has either all biases or none.

    Args:
        dim: Channels C.
        heads: Attention heads.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = F.linear(x, self.in_proj_weight)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)  # [B, heads, N, C/heads]
        return self.out_proj(x.transpose(1, 2).flatten(2))


class TokenLayer(nn.Module):
    """Pre-norm encoder layer of TokenPose, [B, N, C] to the same.

    Args:
        dim: Channels C.
        heads: Attention heads.
        hidden: Channels inside the feed-forward layer.
    """

    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attn = TokenAttention(dim, heads)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.norm1(x))
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class TransPose(nn.Module):
    """Global attention among all pixels of a map.

    [B, in_channels, H, W] becomes [B, dim, H, W]; a 1x1 convolution then gives
    the heat maps.

    Args:
        in_channels: Of the map.
        dim: Channels of the encoder.
        hidden: Channels inside its feed-forward layers.
        depth: Layers.
        heads: Attention heads.
        dropout: Rate inside the layers.
    """

    def __init__(self,
                 in_channels: int,
                 dim: int = 96,
                 hidden: int = 192,
                 depth: int = 6,
                 heads: int = 1,
                 dropout: float = 0.1):
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, dim, 1, bias=False)
        self.layers = nn.ModuleList(
            PositionedLayer(dim, heads, hidden, dropout, batch_first=True)
            for _ in range(depth))
        for p in self.layers.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        hw = (x.shape[-2], x.shape[-1])
        position = sine_position(hw, x.shape[1], x.device).to(x.dtype)
        x = x.flatten(2).transpose(1, 2)  # [B, H*W, dim]
        for layer in self.layers:
            x = layer(x, position)
        return x.transpose(1, 2).unflatten(2, hw)


class TokenPose(nn.Module):
    """One token for each key point, which learns its heat map from patches.

    [B, in_channels, H, W] becomes heat maps [B, K, *heatmap_size]. As in the
    released code of TokenPose-L, the layers form groups: each gives its key
    point tokens to the head, and positions are added to the patches before
    the first layer and between the layers of a group.

    Args:
        in_channels: Of the map.
        out_channels: Key points.
        heatmap_size: Height and width of a heat map, which a linear layer
            draws at once; so the input has one size.
        patch_size: Height and width of a patch of the map.
        dim: Channels of a token.
        hidden: Channels inside the feed-forward layers.
        depths: Layers of each group.
        heads: Attention heads.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 heatmap_size: Tuple[int, int],
                 patch_size: Tuple[int, int] = (4, 3),
                 dim: int = 192,
                 hidden: int = 576,
                 depths: Sequence[int] = (8, 8, 8),
                 heads: int = 12):
        super().__init__()
        self.heatmap_size = tuple(heatmap_size)
        self.patches = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.tokens = nn.Parameter(torch.empty(1, out_channels, dim))
        self.groups = nn.ModuleList(
            nn.ModuleList(TokenLayer(dim, heads, hidden) for _ in range(depth))
            for depth in depths)
        width = dim * len(depths)
        self.draw = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, math.prod(self.heatmap_size)))
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.trunc_normal_(p, std=.02)
            elif name.endswith('bias'):
                nn.init.zeros_(p)

    def run_group(self, layers: Iterable[nn.Module], x: Tensor,
                  position: Tensor) -> Tensor:
        for i, layer in enumerate(layers):
            x = layer(x + position if i else x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        hw = (x.shape[-2], x.shape[-1])
        at = sine_position(hw, x.shape[1], x.device).to(x.dtype)
        x = x.flatten(2).transpose(1, 2)  # [B, patches, dim]
        keys = self.tokens.expand(len(x), -1, -1)  # [B, K, dim]
        x = torch.cat([keys, x + at], 1)
        at = F.pad(at, (0, 0, keys.shape[1], 0))  # key points have no place
        outs = []
        for layers in self.groups:
            x = self.run_group(cast(nn.ModuleList, layers), x, at)
            outs.append(x[:, :keys.shape[1]])
        return self.draw(torch.cat(outs, -1)).unflatten(2, self.heatmap_size)
