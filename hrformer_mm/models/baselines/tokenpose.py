# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""TokenPose: a transformer on patches and one token per keypoint.

Li et al., TokenPose: Learning Keypoint Tokens for Human Pose Estimation, ICCV
2021, https://arxiv.org/abs/2104.03516, which Table 3 compares HRFormer with.
The stem is HRNet-W48 up to stage 3. Letters: B batch, N tokens, C channels, H
and W of the map, K keypoints.
"""
import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...core.positions import sine_position
from ...registry import MODELS
from .common import OnFinestMap


class TokenAttention(nn.Module):
    """Self-attention on [B, N, C] with a bias in the output projection only.

    Parameters are named as in ``nn.MultiheadAttention``, which has either all
    biases or none.

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
    """Pre-norm encoder layer of TokenPose; keeps the shape [B, N, C].

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


class TokenPose(nn.Module):
    """Transformer with one token per keypoint, which predicts its heatmap.

    Maps [B, in_channels, H, W] to heatmaps [B, K, *heatmap_size]. As in the
    released code of TokenPose-L, the layers form groups: each passes its
    keypoint tokens to the head, and positions are added to the patches before
    the first layer and between the layers of a group.

    Args:
        in_channels: Number of channels of the map.
        out_channels: Number of keypoints.
        heatmap_size: Height and width of a heatmap. A linear layer predicts
            it, so the size of the input is fixed.
        patch_size: Height and width of a patch of the map.
        dim: Number of channels of a token.
        hidden: Channels inside the feed-forward layers.
        depths: Number of layers of each group.
        heads: Number of attention heads.
    """

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 heatmap_size: tuple[int, int],
                 patch_size: tuple[int, int] = (4, 3),
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
        at = F.pad(at, (0, 0, keys.shape[1], 0))  # keypoints have no position
        outs = []
        for layers in self.groups:
            x = self.run_group(cast(nn.ModuleList, layers), x, at)
            outs.append(x[:, :keys.shape[1]])
        return self.draw(torch.cat(outs, -1)).unflatten(2, self.heatmap_size)


@MODELS.register_module()
class TokenPoseNeck(OnFinestMap, TokenPose, BaseModule):
    """:class:`TokenPose` on the finest map, before MMPose's ``HeatmapHead``.

    Its outputs are heatmaps, so the head must have ``final_layer=None``.

    Args:
        init_cfg: As in mmengine.
        **kwargs: See :class:`TokenPose`.
    """
