# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""ViT-B/16 over three stages of a ResNet-50 (ViT-Hybrid), in plain PyTorch.

The backbone of DPT-Hybrid (Ranftl et al., ICCV 2021,
https://arxiv.org/abs/2103.13413). Parameters have the names of timm's
``vit_base_r50_s16_384``, whose weights fit. Letters: B batch, C channels, H
and W of a map, N patches.
"""
from typing import List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Level = Tuple[Tensor, ...]


def pad_same(x: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    """Pad so that a map of H becomes one of H / stride, rounded up.

    The odd pixel of padding goes to the right and below, as in TensorFlow.
    """
    height, width = x.shape[-2:]
    rows, columns = (max((-(-n // stride) - 1) * stride + kernel - n, 0)
                     for n in (height, width))
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2,
                     rows - rows // 2), value=value)


class StdConv(nn.Conv2d):
    """Convolution with standardised weights and padding as in TensorFlow."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1):
        super().__init__(c_in, c_out, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(
            self.weight.flatten(1)[None], None, None, training=True, eps=1e-8)
        x = pad_same(x, self.kernel_size[0], self.stride[0], 0.)
        return F.conv2d(
            x, weight.view_as(self.weight), stride=self.stride)


class ConvNorm(nn.Module):
    """Convolution and group norm, the shortcut of a stage's first block."""

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.conv = StdConv(c_in, c_out, 1, stride)
        self.norm = nn.GroupNorm(32, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Stem(nn.Module):
    """Images [B, 3, H, W] to maps [B, 64, H/4, W/4]."""

    def __init__(self):
        super().__init__()
        self.conv = StdConv(3, 64, 7, 2)
        self.norm = nn.GroupNorm(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        return F.max_pool2d(pad_same(x, 3, 2, float('-inf')), 3, 2)


class Bottleneck(nn.Module):
    """ResNet's bottleneck with group norms."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        inner = c_out // 4
        self.downsample = None
        if c_in != c_out:
            self.downsample = ConvNorm(c_in, c_out, stride)
        self.conv1 = StdConv(c_in, inner, 1)
        self.norm1 = nn.GroupNorm(32, inner)
        self.conv2 = StdConv(inner, inner, 3, stride)
        self.norm2 = nn.GroupNorm(32, inner)
        self.conv3 = StdConv(inner, c_out, 1)
        self.norm3 = nn.GroupNorm(32, c_out)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return F.relu(self.norm3(self.conv3(x)) + shortcut)


class Stage(nn.Module):
    """Bottlenecks of one resolution."""

    def __init__(self, c_in: int, c_out: int, depth: int, stride: int):
        super().__init__()
        self.blocks = nn.Sequential(
            Bottleneck(c_in, c_out, stride),
            *(Bottleneck(c_out, c_out) for _ in range(depth - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class ResNet(nn.Module):
    """Three stages of a ResNet-50, which return their maps."""

    def __init__(self, depths: Sequence[int] = (3, 4, 9)):
        super().__init__()
        self.stem = Stem()
        self.stages = nn.ModuleList(
            Stage(c_in, c_out, depth, stride)
            for c_in, c_out, depth, stride in zip((64, 256, 512), (
                256, 512, 1024), depths, (1, 2, 2)))

    def forward(self, x: Tensor) -> Level:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class PatchEmbed(nn.Module):
    """The ResNet and the projection of its last map to tokens."""

    def __init__(self, dim: int, depths: Sequence[int]):
        super().__init__()
        self.backbone = ResNet(depths)
        self.proj = nn.Conv2d(1024, dim, 1)


class Attention(nn.Module):
    """Self-attention on tokens [B, N, C]."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ViTBlock(nn.Module):
    """Pre-norm transformer block on tokens [B, N, C]."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class HybridViT(nn.Module):
    """ViT-Hybrid as DPT uses it.

    Takes images [B, 3, H, W] and returns the maps of the first two stages of
    the ResNet, (x, ) with strides 4 and 8, and the patches and the class token
    after two blocks, ([B, C, H/16, W/16], [B, C]). Learned positions are
    resized to the map bilinearly. There is neither a classifier nor the norm
    before it.

    Args:
        dim: Channels of a token.
        heads: Attention heads.
        depth: Transformer blocks.
        hooks: Blocks whose tokens are returned, from 0.
        grid: Height and width of the map that positions were learned on.
        stage_depths: Bottlenecks in each stage of the ResNet.

    Raises:
        ValueError: If ``hooks`` are not two blocks in order.
    """

    def __init__(self,
                 dim: int = 768,
                 heads: int = 12,
                 depth: int = 12,
                 hooks: Tuple[int, int] = (8, 11),
                 grid: Tuple[int, int] = (24, 24),
                 stage_depths: Sequence[int] = (3, 4, 9)):
        super().__init__()
        self.hooks, self.grid = tuple(hooks), tuple(grid)
        if len(self.hooks) != 2 or not (
                0 <= self.hooks[0] < self.hooks[1] < depth):
            raise ValueError(f'hooks must be two of the {depth} blocks in '
                             f'order, counted from 0, got {hooks!r}')
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(
            torch.zeros(1, 1 + grid[0] * grid[1], dim))
        nn.init.trunc_normal_(self.pos_embed, std=.02)
        self.patch_embed = PatchEmbed(dim, stage_depths)
        # Blocks after the last hook would get no gradient.
        self.blocks = nn.ModuleList(
            ViTBlock(dim, heads) for _ in range(self.hooks[1] + 1))

    def positions(self, hw: Tuple[int, int]) -> Tensor:
        """Learned positions [1, 1 + N, C] for a map of another size."""
        if hw == self.grid:
            return self.pos_embed
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        rest = rest.transpose(1, 2).unflatten(2, self.grid)
        rest = F.interpolate(rest, hw, mode='bilinear', align_corners=False)
        return torch.cat([first, rest.flatten(2).transpose(1, 2)], 1)

    def forward(self, x: Tensor) -> Tuple[Level, ...]:
        fine, middle, coarse = self.patch_embed.backbone(x)
        x = self.patch_embed.proj(coarse)
        hw = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions(hw)
        levels: List[Level] = [(fine, ), (middle, )]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.hooks:
                patches = x[:, 1:].transpose(1, 2).unflatten(2, hw)
                levels.append((patches, x[:, 0]))
        return tuple(levels)
