# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer in plain PyTorch.

Yuan et al., HRFormer: High-Resolution Transformer for Dense Prediction,
NeurIPS 2021, https://arxiv.org/abs/2110.09408

This module has the parallel branches of transformer blocks, the fusion between
them, and the network. Read ``arch``, ``attention`` and ``blocks`` first;
``kernels`` has the device-specific code. Parameter names are those of MMPose
and HRNet. Maps are [B, C, H, W] in channels-last memory format.
"""
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kernels
from .arch import (
    Arch,
    check_arguments,
    check_out_indices,
    check_windows,
    drop_path_rates,
    get_arch,
)
from .blocks import (
    FFN,
    Block,
    Layers,
    basic_block,
    bottleneck,
    conv_bn,
    conv_bn_relu,
)
from .kernels import Keeper, by_images, set_kernels


class TransformerBranch(nn.Sequential):
    """Transformer blocks of one resolution; keeps the shape [B, C, H, W]."""

    def run_blocks(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        if all(isinstance(b, Block) and b.is_fused(x) for b in self):
            x = kernels.fused_blocks(self, x, FFN)
        else:
            x = super().forward(x)
        return x.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        # The feed-forward of every size in the paper is four times as wide.
        return by_images(self.run_blocks, x, self, width=4 * x.shape[1])


def optional_modules(
        modules: Iterable[nn.Module | None]) -> nn.ModuleList:
    """Build a module list in which None stands for the identity."""
    return nn.ModuleList(cast(list[nn.Module], list(modules)))


def downsample(c_in: int, c_out: int, dw_conv: bool) -> list[nn.Module]:
    """Build a layer of stride 2: depth-wise separable or dense (HRNet)."""
    if dw_conv:
        return (conv_bn(c_in, c_in, 3, stride=2, groups=c_in) +
                conv_bn(c_in, c_out, 1))
    return conv_bn(c_in, c_out, 3, stride=2)


def fuse_path(src: int, dst: int, channels: Sequence[int],
              dw_conv: bool) -> nn.Sequential | None:
    """Build the layers from branch ``src`` to the channels of ``dst``.

    They also downsample a finer source to the resolution of ``dst``; a coarser
    one is upsampled afterwards by :func:`upsample_to`.
    """
    c_src, c_dst = channels[src], channels[dst]
    if src == dst:
        return None
    if src > dst:
        return Layers(*conv_bn(c_src, c_dst, 1))
    steps = [[*downsample(c_src, c_src, dw_conv), nn.ReLU(inplace=True)]
             for _ in range(dst - src - 1)]
    steps.append(downsample(c_src, c_dst, dw_conv))
    return nn.Sequential(*(Layers(*step) for step in steps))


def upsample_to(x: Tensor, factor: int, size: Sequence[int],
                mode: str) -> Tensor:
    """Upsample by ``factor``, then resize to ``size`` if the sizes differ.

    They differ for maps of odd size: 520 x 520 has maps of 130, 65, 33, 17.
    The official classification and segmentation code upsamples with
    ``'nearest'`` and resizes with aligned corners, the pose code with
    ``'bilinear'`` and without them. ``'bilinear_aligned'`` resizes directly to
    ``size`` with aligned corners, as in segmentation HRNets.
    """
    if mode == 'bilinear_aligned':
        return F.interpolate(
            x, tuple(size), mode='bilinear', align_corners=True)
    align = None if mode == 'nearest' else False
    x = F.interpolate(x, scale_factor=factor, mode=mode, align_corners=align)
    # Sizes may be dynamic in an exported graph; comparing would fix them.
    is_open = any(isinstance(n, torch.SymInt) for n in size)
    if not is_open and tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(
        x, tuple(size), mode='bilinear', align_corners=mode == 'nearest')


class Fusion(nn.ModuleDict):
    """Multi-resolution fusion: every output sums all branches, then ReLU.

    Keys are output branches, so a network that returns fewer maps has the
    same parameter names.

    Args:
        channels: Channels of each input branch.
        outs: Branches to output.
        upsample: How coarse maps are upsampled, see :func:`upsample_to`.
        dw_conv: Downsample depth-wise separably; HRNet's fusion is dense.
    """
    kernel_choice: str | None = None  # see kernels.set_kernels

    def __init__(self, channels: Sequence[int], outs: Sequence[int],
                 upsample: str, dw_conv: bool):
        super().__init__({
            str(dst): optional_modules(
                fuse_path(src, dst, channels, dw_conv)
                for src in range(len(channels)))
            for dst in outs
        })
        self.upsample = upsample

    def fuse(self, dst: int, xs: Sequence[Tensor]) -> Tensor:
        """Compute the sum of all branches for branch ``dst``, then ReLU."""
        size = xs[dst].shape[-2:]
        parts = [
            x if path is None else path(x)
            for path, x in zip(cast(nn.ModuleList, self[str(dst)]), xs)
        ]
        if kernels.fuses_sum(self, parts, size, self.upsample):
            return kernels.fused_sum(parts, size, self.upsample)
        for src in range(dst + 1, len(parts)):
            parts[src] = upsample_to(parts[src], 2**(src - dst), size,
                                     self.upsample)
        return F.relu(sum(parts[1:], parts[0]))

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        return [self.fuse(int(dst), xs) for dst in self]


class HighResolutionModule(nn.Module):
    """Parallel branches, then fusion between them.

    Args:
        branches: One module per resolution, finest first.
        fuse: The fusion.
    """

    def __init__(self, branches: Sequence[nn.Module], fuse: Fusion):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.fuse_layers = fuse

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        return self.fuse_layers(
            [branch(x) for branch, x in zip(self.branches, xs)])


class HRFormer(Keeper):
    """High-resolution transformer backbone.

    Maps images [B, in_channels, H, W] of any size to a tuple with the map of
    each branch in ``out_indices``; branch i has stride 4 * 2**i, sizes rounded
    up.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, an :class:`Arch` or a dict
            of its fields (Table 2).
        in_channels: Channels of the image.
        out_indices: Branches to output, finest first.
        window_size: Height and width of the attention windows, one number or
            one for each branch.
        drop_path_rate: Stochastic depth of the deepest block; it grows
            linearly from 0.
        ffn: ``'dwconv'`` is the paper's; ``'nodw'`` drops its depth-wise
            convolution; ``'mlp'`` is two plain linear layers (Table 7).
        attention: ``'window'`` is the paper's; ``'shifted'`` shifts the
            windows of every second block (Table 9).
        block: ``'transformer'`` is the paper's; ``'conv'`` makes an HRNet of
            the same layout, with its dense fusion (Table 11).
        rel_pos_bias: Add a relative position bias in attention. The official
            pose weights were trained without.
        upsample: How fusion upsamples coarse maps. HRFormer's official code
            uses ``'nearest'`` for classification and segmentation and
            ``'bilinear'`` for pose; HRNet's uses ``'nearest'`` for
            classification and pose and ``'bilinear_aligned'`` (aligned
            corners) for segmentation.
        mask_padding: Prevent real tokens from attending to window padding.
        with_cp: ``True`` recomputes every block in the backward pass to save
            memory, ``'ffn'`` only norms and activations inside the
            feed-forward layers.
        kernels: ``'triton'`` uses fused GPU kernels, ``'plain'`` does not;
            by default the environment variable ``HRFORMER_MM_KERNELS``
            chooses. See :mod:`hrformer_mm.core.kernels.triton`.

    Raises:
        ValueError: If a value is invalid; the message names the valid ones.

    Example:
        >>> maps = HRFormer('small')(torch.rand(1, 3, 64, 64))
        >>> [tuple(m.shape) for m in maps]
        [(1, 32, 16, 16), (1, 64, 8, 8), (1, 128, 4, 4), (1, 256, 2, 2)]
    """

    def __init__(self,
                 arch: str | Arch | Mapping = 'base',
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 window_size: int | Sequence[int] = 7,
                 drop_path_rate: float = 0.,
                 ffn: str = 'dwconv',
                 attention: str = 'window',
                 block: str = 'transformer',
                 rel_pos_bias: bool = True,
                 upsample: str = 'nearest',
                 mask_padding: bool = False,
                 with_cp: bool | str = False,
                 kernels: str | None = None):
        super().__init__()
        self.arch = get_arch(arch)
        self.out_indices = check_out_indices(out_indices,
                                             len(self.arch.channels))
        self.window_size = check_windows(window_size)
        (_, self.ffn, self.attention, self.block, self.upsample, self.with_cp,
         self.rel_pos_bias, self.mask_padding,
         self.drop_path_rate) = check_arguments(
             in_channels=in_channels, ffn=ffn, attention=attention,
             block=block, upsample=upsample, with_cp=with_cp,
             rel_pos_bias=rel_pos_bias, mask_padding=mask_padding,
             drop_path_rate=drop_path_rate)
        self.out_channels = [self.arch.channels[i] for i in self.out_indices]
        self.build_stem(in_channels)
        self.build_stages()
        set_kernels(self, kernels)

    def build_stem(self, in_channels: int):
        """Build the stem and stage 1."""
        whole = self.with_cp is True
        self.conv1, self.bn1 = conv_bn(in_channels, 64, 3, stride=2)
        self.conv2, self.bn2 = conv_bn(64, 64, 3, stride=2)
        # HRNet's stage 1 is as deep as its modules, HRFormer's always two.
        depth = self.arch.blocks if self.block == 'conv' else 2
        self.layer1 = nn.Sequential(
            *(bottleneck(c_in, whole) for c_in in [64] + [256] * (depth - 1)))

    def build_stages(self):
        """Build the transitions that add branches, and stages 2 to 4."""
        c = self.arch.channels
        rates = iter(drop_path_rates(self.drop_path_rate, self.arch))
        self.transition1 = nn.ModuleList([
            conv_bn_relu(256, c[0], 3),
            nn.Sequential(conv_bn_relu(256, c[1], 3, stride=2))
        ])
        self.transition2 = self.build_transition(2)
        if len(c) == 4:
            self.transition3 = self.build_transition(3)
        self.stage2 = self.build_stage(2, rates)
        self.stage3 = self.build_stage(3, rates)
        if len(c) == 4:
            self.stage4 = self.build_stage(4, rates)

    def build_transition(self, i: int) -> nn.ModuleList:
        """Build the transition to branch ``i`` from the one before it."""
        c = self.arch.channels
        new = nn.Sequential(conv_bn_relu(c[i - 1], c[i], 3, stride=2))
        return optional_modules([None] * i + [new])

    def build_stage(self, stage: int,
                    rates: Iterator[Sequence[float]]) -> nn.Sequential:
        """Build the modules of a stage, whose number is that of branches."""
        outs: list[Sequence[int]] = [range(stage)
                                     ] * self.arch.modules[stage - 2]
        if stage == len(self.arch.channels):
            outs[-1] = self.out_indices
        return nn.Sequential(*(self.build_module(stage, next(rates), out)
                               for out in outs))

    def build_module(self, num_branches: int, rates: Sequence[float],
                     outs: Sequence[int]) -> HighResolutionModule:
        fuse = Fusion(self.arch.channels[:num_branches], outs, self.upsample,
                      self.block == 'transformer')
        return HighResolutionModule(
            [self.build_branch(b, rates) for b in range(num_branches)], fuse)

    def build_branch(self, b: int, rates: Sequence[float]) -> nn.Module:
        dim, window = self.arch.channels[b], self.window_size[b]
        if self.block == 'conv':
            return nn.Sequential(*(basic_block(dim, self.with_cp is True)
                                   for _ in rates))
        shifts = [
            window // 2 if self.attention == 'shifted' and i % 2 else 0
            for i in range(len(rates))
        ]
        return TransformerBranch(*(Block(
            dim,
            self.arch.heads[b],
            self.arch.mlp_ratio,
            rate,
            self.ffn,
            self.with_cp,
            window_size=window,
            rel_pos_bias=self.rel_pos_bias,
            mask_padding=self.mask_padding,
            shift=shift) for rate, shift in zip(rates, shifts)))

    def forward_stem(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images to the first two branches, through stage 1."""
        x = kernels.conv_norm_relu(self.conv1, self.bn1, x)
        x = kernels.conv_norm_relu(self.conv2, self.bn2, x)
        x = self.layer1(x)
        return tuple(transition(x) for transition in self.transition1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x.contiguous(memory_format=torch.channels_last)
        stem = (self.conv1, self.bn1, self.conv2, self.bn2, self.layer1,
                self.transition1)
        # 64 channels of a quarter of the pixels are the widest map.
        xs = by_images(self.forward_stem, x, stem, width=16)
        xs = self.stage2(xs)
        xs = self.stage3([*xs, self.transition2[2](xs[-1])])
        if len(self.arch.channels) == 4:
            xs = self.stage4([*xs, self.transition3[3](xs[-1])])
        return tuple(xs)
