# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Blocks of a branch: HRFormer's transformer block and ResNet's blocks.

Transformer blocks work on [B, H, W, C], convolutional ones on [B, C, H, W] in
channels-last memory format, which has the same memory layout.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels
from .attention import WindowAttention
from .checkpointing import recompute
from .kernels import Keeper, PointwiseConv


class DropPath(nn.Module):
    """Zero whole samples of a residual with probability ``rate``."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def factor(self, x: Tensor) -> Tensor | None:
        """Draw the factor of each sample; None if all are kept."""
        if self.rate == 0. or not self.training:
            return None
        keep = 1 - self.rate
        shape = (x.shape[0], ) + (1, ) * (x.ndim - 1)
        return x.new_empty(shape).bernoulli_(keep).div_(keep)

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor(x)
        return x if factor is None else x * factor

    def extra_repr(self) -> str:
        return f'rate={self.rate:.3g}'


def channels_last(conv: nn.Conv2d) -> nn.Conv2d:
    """Convert the weight of a convolution to channels-last memory format.

    This avoids transposing it in every step, and its gradient, which has this
    layout, matches DDP's buckets.
    """
    return conv.to(memory_format=torch.channels_last)


class FFN(nn.Module):
    """Feed-forward on a [B, H, W, C] map, with a 3x3 depth-wise convolution.

    The convolution exchanges information across windows (Section 3.2). Each
    layer, including the last one, is followed by batch norm and GELU.

    Args:
        dim: Number of channels of the input and the output.
        hidden: Number of hidden channels.
        dw_conv: Include the depth-wise convolution (Table 7 drops it).
        with_cp: Store only the outputs of the convolutions, and recompute
            norms and activations in the backward pass.
    """

    def __init__(self,
                 dim: int,
                 hidden: int,
                 dw_conv: bool = True,
                 with_cp: bool = False):
        super().__init__()
        self.with_cp = with_cp
        self.fc1 = PointwiseConv(dim, hidden)
        self.norm1, self.act1 = nn.BatchNorm2d(hidden), nn.GELU()
        self.dw3x3 = None
        if dw_conv:
            self.dw3x3 = channels_last(
                nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden))
            self.norm2, self.act2 = nn.BatchNorm2d(hidden), nn.GELU()
        self.fc2 = PointwiseConv(hidden, dim)
        self.norm3, self.act3 = nn.BatchNorm2d(dim), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        layer = kernels.conv_norm_act
        x = x.permute(0, 3, 1, 2)  # [B, C, H, W], channels-last in memory
        if self.with_cp and torch.is_grad_enabled():
            return self.forward_recomputing(x).permute(0, 2, 3, 1)
        x = layer(self.fc1, self.norm1, self.act1, x)
        if self.dw3x3 is not None:
            x = layer(self.dw3x3, self.norm2, self.act2, x)
        x = layer(self.fc2, self.norm3, self.act3, x)
        return x.permute(0, 2, 3, 1)

    def forward_recomputing(self, x: Tensor) -> Tensor:
        """Compute the same, with checkpoints after the convolutions."""

        def then(norm: nn.Module, act: nn.Module, conv: nn.Module,
                 x: Tensor) -> Tensor:
            return recompute(self, lambda x: conv(act(norm(x))), x, when=True)

        x = self.fc1(x)
        if self.dw3x3 is None:
            x = then(self.norm1, self.act1, self.fc2, x)
        else:
            x = then(self.norm1, self.act1, self.dw3x3, x)
            x = then(self.norm2, self.act2, self.fc2, x)
        return self.act3(self.norm3(x))


class MLP(nn.Module):
    """Two linear layers with GELU in between, on [..., C] (for ablations).

    Args:
        dim: Number of channels of the input and the output.
        hidden: Number of hidden channels.
        with_cp: Recompute the activation in the backward pass.
    """

    def __init__(self, dim: int, hidden: int, with_cp: bool = False):
        super().__init__()
        self.with_cp = with_cp
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return recompute(
            self,
            lambda x: self.fc2(self.act(x)),
            self.fc1(x),
            when=self.with_cp)


class Block(Keeper):
    """Transformer block: window attention, then feed-forward, [B, H, W, C].

    Args:
        dim: Number of channels.
        heads: Number of attention heads.
        mlp_ratio: Hidden channels of the feed-forward, as a multiple of
            ``dim``.
        drop_path: Stochastic depth rate of both residuals.
        ffn: ``'dwconv'`` is :class:`FFN`, ``'nodw'`` the same without its
            depth-wise convolution, ``'mlp'`` is :class:`MLP`.
        with_cp: ``True`` recomputes the block in the backward pass,
            ``'ffn'`` only norms and activations inside its feed-forward.
        eps: Epsilon of the layer norms: 1e-6 in HRFormer, 1e-5 in Swin.
        attention: Arguments of :class:`WindowAttention`.
    """
    kernel_choice: str | None = None  # see kernels.set_kernels

    def __init__(self,
                 dim: int,
                 heads: int,
                 mlp_ratio: int = 4,
                 drop_path: float = 0.,
                 ffn: str = 'dwconv',
                 with_cp: bool | str = False,
                 eps: float = 1e-6,
                 **attention):
        super().__init__()
        self.with_cp = with_cp
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = WindowAttention(dim, heads, **attention)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        hidden, ffn_cp = dim * mlp_ratio, with_cp == 'ffn'
        self.ffn = MLP(dim, hidden, ffn_cp) if ffn == 'mlp' else FFN(
            dim, hidden, ffn == 'dwconv', ffn_cp)
        self.drop_path = DropPath(drop_path)

    def attend(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.attn(self.norm1(x)))

    def feed_forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.ffn(self.norm2(x)))

    def is_fused(self, x: Tensor) -> bool:
        """Whether fused kernels compute the block."""
        return (kernels.fuses_block(self, x)
                and kernels.may_bypass(self, Block)
                and kernels.may_bypass(self.drop_path, DropPath))

    def forward(self, x: Tensor) -> Tensor:
        if self.is_fused(x):
            return kernels.fused_blocks([self], x, FFN)
        whole = self.with_cp is True
        x = recompute(self, self.attend, x, when=whole)
        return recompute(self, self.feed_forward, x, when=whole)


def conv_bn(c_in: int,
            c_out: int,
            kernel: int,
            stride: int = 1,
            groups: int = 1) -> list[nn.Module]:
    """Build a convolution without bias and its batch norm."""
    conv = nn.Conv2d(
        c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [channels_last(conv), nn.BatchNorm2d(c_out)]


class Layers(Keeper, nn.Sequential):
    """Convolutions, each followed by its batch norm, and activations."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.run_layers(self, x)


def conv_bn_relu(c_in: int, c_out: int, kernel: int,
                 stride: int = 1) -> Layers:
    return Layers(*conv_bn(c_in, c_out, kernel, stride),
                  nn.ReLU(inplace=True))


class Residual(Keeper):
    """Convolutions with batch norm and ReLU around a shortcut (ResNet).

    Layers are named ``conv1, bn1, conv2, ...``; if the channels change, the
    shortcut is a projection named ``downsample``.

    Args:
        channels: Channels of the input and after every convolution.
        kernels: Kernel size of each convolution.
        with_cp: Recompute the block in the backward pass.
        depthwise: Make convolutions larger than 1x1 depth-wise.
    """
    kernel_choice: str | None = None  # see kernels.set_kernels

    def __init__(self,
                 channels: Sequence[int],
                 kernels: Sequence[int],
                 with_cp: bool = False,
                 depthwise: bool = False):
        super().__init__()
        self.depth, self.with_cp = len(kernels), with_cp
        for i, kernel in enumerate(kernels):
            groups = channels[i] if depthwise and kernel > 1 else 1
            conv, norm = conv_bn(
                channels[i], channels[i + 1], kernel, groups=groups)
            self.add_module(f'conv{i + 1}', conv)
            self.add_module(f'bn{i + 1}', norm)
        self.downsample = None
        if channels[0] != channels[-1]:
            self.downsample = Layers(*conv_bn(channels[0], channels[-1], 1))

    def body(self, x: Tensor) -> Tensor:
        *inner, last = (
            (getattr(self, f'conv{i + 1}'), getattr(self, f'bn{i + 1}'))
            for i in range(self.depth))
        y = x
        for conv, norm in inner:
            y = kernels.conv_norm_relu(conv, norm, y)
        if isinstance(self.downsample, Layers) and kernels.may_bypass(
                self.downsample, Layers) and len(self.downsample) == 2:
            conv, norm = self.downsample
            y = kernels.sum_conv_norms(*last, y, conv, norm, x)
            return F.relu(y, inplace=True)
        y = kernels.conv_norm(*last, y)
        shortcut = x if self.downsample is None else self.downsample(x)
        if kernels.fuses_sum(self, (y, shortcut), y.shape[2:], 'nearest'):
            return kernels.fused_sum((y, shortcut), y.shape[2:], 'nearest')
        # Neither norm nor sum needs its output, so both are overwritten.
        y += shortcut
        return F.relu(y, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return recompute(self, self.body, x, when=self.with_cp)


def bottleneck(c_in: int, with_cp: bool = False) -> Residual:
    """Build a bottleneck of stage 1: 64 channels inside, 256 out."""
    return Residual((c_in, 64, 64, 256), (1, 3, 1), with_cp)


def basic_block(dim: int, with_cp: bool = False) -> Residual:
    """Build HRNet's basic block: two 3x3 convolutions."""
    return Residual((dim, dim, dim), (3, 3), with_cp)
