# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer in plain PyTorch.

Yuan et al., HRFormer: High-Resolution Transformer for Dense Prediction,
NeurIPS 2021, https://arxiv.org/abs/2110.09408

Parallel branches of transformer blocks, the fusion between them, and the
network. Read ``arch``, ``attention`` and ``blocks`` first. Parameter names are
those of MMPose, which are HRNet's. Maps are [B, C, H, W], channels-last in
memory.
"""
from typing import (Iterable, List, Mapping, Optional, Sequence, Tuple, Union,
                    cast)

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arch import (ATTENTION_TYPES, BLOCK_TYPES, CHECKPOINTING, FFN_TYPES,
                   SWITCH, UPSAMPLE_MODES, Arch, check_choice, check_counts,
                   check_out_indices, check_rate, check_windows,
                   drop_path_rates, get_arch)
from .blocks import Block, basic_block, bottleneck, conv_bn, conv_bn_relu
from .cpu import by_images


class TransformerBranch(nn.Sequential):
    """Transformer blocks of one resolution, [B, C, H, W] to the same."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        widest = x[..., 0].numel() * cast(Block, self[0]).hidden
        x = by_images((self, ), super().forward, x, widest)
        return x.permute(0, 3, 1, 2)


def optional_modules(
        modules: Iterable[Optional[nn.Module]]) -> nn.ModuleList:
    """Make a list in which None holds the place of the identity."""
    return nn.ModuleList(cast(List[nn.Module], list(modules)))


def halve(c_in: int, c_out: int, dw_conv: bool) -> List[nn.Module]:
    """A step of stride 2: depth-wise separable, or HRNet's dense 3x3."""
    if dw_conv:
        return (conv_bn(c_in, c_in, 3, stride=2, groups=c_in) +
                conv_bn(c_in, c_out, 1))
    return conv_bn(c_in, c_out, 3, stride=2)


def fuse_path(src: int, dst: int, channels: Sequence[int],
              dw_conv: bool) -> Optional[nn.Sequential]:
    """Carry branch ``src`` to the width of branch ``dst``.

    A finer source also comes down to its resolution; a coarser one is
    enlarged afterwards by :func:`enlarge`.
    """
    c_src, c_dst = channels[src], channels[dst]
    if src == dst:
        return None
    if src > dst:
        return nn.Sequential(*conv_bn(c_src, c_dst, 1))
    steps = [
        nn.Sequential(*halve(c_src, c_src, dw_conv), nn.ReLU(inplace=True))
        for _ in range(dst - src - 1)
    ]
    return nn.Sequential(*steps,
                         nn.Sequential(*halve(c_src, c_dst, dw_conv)))


def enlarge(x: Tensor, factor: int, size: Sequence[int], mode: str) -> Tensor:
    """Upsample by ``factor``, then fit to ``size`` where that overshoots.

    Maps of odd size do: 520 x 520 gives 130, 65, 33, 17. The official
    classification and segmentation code takes ``'nearest'`` and fits with
    aligned corners, the pose code ``'bilinear'`` without.
    ``'bilinear_aligned'`` resizes straight to ``size`` with aligned corners,
    as segmentation HRNets do.
    """
    if mode == 'bilinear_aligned':
        return F.interpolate(
            x, tuple(size), mode='bilinear', align_corners=True)
    align = None if mode == 'nearest' else False
    x = F.interpolate(x, scale_factor=factor, mode=mode, align_corners=align)
    # An exported graph may leave sizes open; comparing would fix them.
    is_open = any(isinstance(n, torch.SymInt) for n in size)
    if not is_open and tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(
        x, tuple(size), mode='bilinear', align_corners=mode == 'nearest')


class Fusion(nn.ModuleDict):
    """Exchange between branches: every output sums all inputs, then ReLU.

    Keys are output branches, so a network that gives fewer maps has the same
    parameter names.

    Args:
        channels: Of each input branch.
        outs: Branches to give.
        upsample: How coarse maps are enlarged, see :func:`enlarge`.
        dw_conv: Depth-wise separable downsampling; HRNet's is dense.
    """

    def __init__(self, channels: Sequence[int], outs: Sequence[int],
                 upsample: str, dw_conv: bool):
        super().__init__({
            str(dst): optional_modules(
                fuse_path(src, dst, channels, dw_conv)
                for src in range(len(channels)))
            for dst in outs
        })
        self.upsample = upsample

    def gather(self, dst: int, xs: Sequence[Tensor]) -> Tensor:
        """The sum for branch ``dst`` in the order of the sources."""
        size, parts = xs[dst].shape[-2:], []
        for src, path in enumerate(cast(nn.ModuleList, self[str(dst)])):
            x = xs[src] if path is None else path(xs[src])
            if src > dst:
                x = enlarge(x, 2**(src - dst), size, self.upsample)
            parts.append(x)
        return sum(parts[1:], parts[0])

    def forward(self, xs: Sequence[Tensor]) -> List[Tensor]:
        return [F.relu(self.gather(int(dst), xs)) for dst in self]


class Module(nn.Module):
    """Parallel branches, then fusion between them.

    Args:
        branches: One module a resolution, finest first.
        fuse: The exchange.
    """

    def __init__(self, branches: Sequence[nn.Module], fuse: Fusion):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.fuse_layers = fuse

    def forward(self, xs: Sequence[Tensor]) -> List[Tensor]:
        return self.fuse_layers(
            [branch(x) for branch, x in zip(self.branches, xs)])


class HRFormer(nn.Module):
    """High-resolution transformer backbone.

    Takes images [B, in_channels, H, W] of any size and gives a tuple with the
    map of each branch in ``out_indices``; branch i has stride 4 * 2**i, sizes
    rounded up.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, an :class:`Arch` or a dict
            of its fields (Table 2).
        in_channels: Channels of the image.
        out_indices: Branches to give, finest first.
        window_size: Height and width of the attention windows, or one for
            each branch.
        drop_path_rate: Stochastic depth of the deepest block; it grows
            linearly from 0.
        ffn: ``'dwconv'`` is the paper's; ``'nodw'`` leaves its depth-wise
            convolution out; ``'mlp'`` is two plain linear layers (Table 7).
        attention: ``'window'`` is the paper's; ``'shifted'`` shifts the
            windows of every second block (Table 9).
        block: ``'transformer'`` is the paper's; ``'conv'`` makes an HRNet of
            the same layout, with its dense fusion (Table 11).
        rel_pos_bias: Add a relative position bias in attention. The official
            pose weights were trained without.
        upsample: How fusion enlarges coarse maps. HRFormer's official code
            uses ``'nearest'`` for classification and segmentation and
            ``'bilinear'`` for pose; HRNet's uses ``'nearest'`` for
            classification and pose and ``'bilinear_aligned'`` (aligned
            corners) for segmentation.
        mask_padding: Keep real tokens from attending to window padding.
        with_cp: ``True`` recomputes every block in the backward pass to save
            memory, ``'ffn'`` only norms and activations inside the
            feed-forward layers.

    Raises:
        ValueError: For a value that is none of these; it names the choices.

    Example:
        >>> maps = HRFormer('small')(torch.rand(1, 3, 64, 64))
        >>> [tuple(m.shape) for m in maps]
        [(1, 32, 16, 16), (1, 64, 8, 8), (1, 128, 4, 4), (1, 256, 2, 2)]
    """
    transition2: nn.ModuleList
    transition3: nn.ModuleList
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential

    def __init__(self,
                 arch: Union[str, Arch, Mapping] = 'base',
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 window_size: Union[int, Sequence[int]] = 7,
                 drop_path_rate: float = 0.,
                 ffn: str = 'dwconv',
                 attention: str = 'window',
                 block: str = 'transformer',
                 rel_pos_bias: bool = True,
                 upsample: str = 'nearest',
                 mask_padding: bool = False,
                 with_cp: Union[bool, str] = False):
        super().__init__()
        self.arch = get_arch(arch)
        self.out_indices = check_out_indices(out_indices,
                                             len(self.arch.channels))
        self.window_size = check_windows(window_size)
        self.ffn = check_choice('ffn', ffn, FFN_TYPES)
        self.attention = check_choice('attention', attention, ATTENTION_TYPES)
        self.block = check_choice('block', block, BLOCK_TYPES)
        self.upsample = check_choice('upsample', upsample, UPSAMPLE_MODES)
        self.with_cp = check_choice('with_cp', with_cp, CHECKPOINTING)
        self.rel_pos_bias = check_choice('rel_pos_bias', rel_pos_bias, SWITCH)
        self.mask_padding = check_choice('mask_padding', mask_padding, SWITCH)
        self.drop_path_rate = check_rate('drop_path_rate', drop_path_rate)
        self.out_channels = [self.arch.channels[i] for i in self.out_indices]
        check_counts(in_channels=in_channels)
        self.build_stem(in_channels)
        self.build_stages()

    def build_stem(self, in_channels: int):
        """The stem, stage 1, and the transitions that open branches."""
        c = self.arch.channels
        whole = self.with_cp is True
        self.conv1, self.bn1 = conv_bn(in_channels, 64, 3, stride=2)
        self.conv2, self.bn2 = conv_bn(64, 64, 3, stride=2)
        # HRNet's stage 1 is as deep as its modules, HRFormer's always two.
        depth = self.arch.blocks if self.block == 'conv' else 2
        self.layer1 = nn.Sequential(
            *(bottleneck(c_in, whole) for c_in in [64] + [256] * (depth - 1)))
        self.transition1 = nn.ModuleList([
            conv_bn_relu(256, c[0], 3),
            nn.Sequential(conv_bn_relu(256, c[1], 3, stride=2))
        ])
        for i in range(2, len(c)):  # the new branch starts from the last one
            new = nn.Sequential(conv_bn_relu(c[i - 1], c[i], 3, stride=2))
            self.add_module(f'transition{i}',
                            optional_modules([None] * i + [new]))

    def build_stages(self):
        """Stage 2 and those after it."""
        final = len(self.arch.channels)
        rates = iter(drop_path_rates(self.drop_path_rate, self.arch))
        for stage, depth in enumerate(self.arch.modules, start=2):
            outs: List[Sequence[int]] = [range(stage)] * (depth - 1)
            outs += [self.out_indices if stage == final else range(stage)]
            self.add_module(
                f'stage{stage}',
                nn.Sequential(*(self.build_module(stage, next(rates), out)
                                for out in outs)))

    def build_module(self, num_branches: int, rates: Sequence[float],
                     outs: Sequence[int]) -> Module:
        fuse = Fusion(self.arch.channels[:num_branches], outs, self.upsample,
                      self.block == 'transformer')
        return Module([self.build_branch(b, rates)
                       for b in range(num_branches)], fuse)

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

    def begin(self, x: Tensor) -> Tuple[Tensor, ...]:
        """Images to the first two branches: the stem and stage 1."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.layer1(x)
        return tuple(transition(x) for transition in self.transition1)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        x = x.contiguous(memory_format=torch.channels_last)
        layers = (self.conv1, self.bn1, self.conv2, self.bn2, self.layer1,
                  self.transition1)
        widest = x[:, 0].numel() * 16  # 64 channels of a quarter of the pixels
        xs = by_images(layers, self.begin, x, widest)
        xs = self.stage2(xs)
        xs = self.stage3([*xs, self.transition2[2](xs[-1])])
        if len(self.arch.channels) == 4:
            xs = self.stage4([*xs, self.transition3[3](xs[-1])])
        return tuple(xs)
