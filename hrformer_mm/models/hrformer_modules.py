# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Block and multi-branch module with the names and arguments of MMPose."""
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..core.blocks import Block
from ..core.hrformer import Fusion, HighResolutionModule, TransformerBranch
from .extra import (
    apply_norm_cfg,
    apply_transformer_norm_cfg,
    check_conv_cfg,
    translate_upsample,
    whole,
)


class HRFormerBlock(Block):
    """Transformer block on maps [B, C, H, W].

    Args:
        in_features: Number of channels.
        out_features: The same number; MMPose's block has both.
        num_heads: Number of attention heads.
        window_size: Size of the windows.
        mlp_ratio: Hidden channels of the feed-forward, as a multiple.
        drop_path: Stochastic depth rate.
        norm_cfg: Batch norms, see :class:`.backbones.HRFormer`.
        transformer_norm_cfg: Layer norms, likewise.
        with_rpe: Add the relative position bias to attention.
        with_cp: Recompute the block in the backward pass.

    Raises:
        ValueError: If the numbers of channels differ.
    """
    expansion = 1

    def __init__(self,
                 in_features: int,
                 out_features: int,
                 num_heads: int,
                 window_size: int = 7,
                 mlp_ratio: float = 4.,
                 drop_path: float = 0.,
                 norm_cfg: Mapping | None = None,
                 transformer_norm_cfg: Mapping | None = None,
                 with_rpe: bool = True,
                 with_cp: bool = False):
        if in_features != out_features:
            raise ValueError('in_features and out_features must be equal, got '
                             f'{in_features} and {out_features}')
        super().__init__(
            in_features,
            num_heads,
            whole(mlp_ratio),
            drop_path,
            with_cp=with_cp,
            window_size=window_size,
            rel_pos_bias=with_rpe)
        apply_norm_cfg(self, norm_cfg or {})
        apply_transformer_norm_cfg(self, transformer_norm_cfg or {})

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class HRFomerModule(HighResolutionModule):
    """Parallel branches and their fusion; MMPose spells the name so.

    Args:
        num_branches: Number of branches.
        block: :class:`HRFormerBlock`.
        num_blocks: Number of blocks of each branch.
        num_inchannels: Number of channels of each branch.
        num_channels: The same numbers.
        num_heads: Number of attention heads of each branch.
        num_window_sizes: Size of the windows of each branch.
        num_mlp_ratios: Ratio of the feed-forward of each branch.
        multiscale_output: Output all branches, not only the first.
        drop_paths: Stochastic depth rate of each block.
        with_rpe: Add the relative position bias to attention.
        conv_cfg: As in :class:`.backbones.HRFormer`, like the next two.
        norm_cfg: Batch norms.
        transformer_norm_cfg: Layer norms.
        with_cp: Recompute the blocks in the backward pass.
        upsample_cfg: Mode of upsampling, as ``extra.upsample``.

    Raises:
        ValueError: If an argument is unsupported or has another length.
    """

    def __init__(self,
                 num_branches: int,
                 block: type,
                 num_blocks: Sequence[int],
                 num_inchannels: Sequence[int],
                 num_channels: Sequence[int],
                 num_heads: Sequence[int],
                 num_window_sizes: Sequence[int],
                 num_mlp_ratios: Sequence[float],
                 multiscale_output: bool = True,
                 drop_paths: Sequence[float] = (),
                 with_rpe: bool = True,
                 conv_cfg: Mapping | None = None,
                 norm_cfg: Mapping | None = None,
                 transformer_norm_cfg: Mapping | None = None,
                 with_cp: bool = False,
                 upsample_cfg: Mapping | None = None):
        given: list[Any] = [num_blocks, num_inchannels, num_channels,
                            num_heads, num_window_sizes, num_mlp_ratios]
        names = ('num_blocks', 'num_inchannels', 'num_channels', 'num_heads',
                 'num_window_sizes', 'num_mlp_ratios')
        for name, value in zip(names, given):
            if len(value) != num_branches:
                raise ValueError(f'{name} must have {num_branches} values, '
                                 f'one for each branch, got {value!r}')
        if not issubclass(block, HRFormerBlock):
            raise ValueError(f'block must be HRFormerBlock, got {block!r}')
        if list(num_inchannels) != list(num_channels):
            raise ValueError('num_inchannels and num_channels must be equal, '
                             f'got {num_inchannels} and {num_channels}')
        rates = drop_paths or (0., ) * max(num_blocks)
        if len(rates) < max(num_blocks):
            raise ValueError(f'drop_paths must have {max(num_blocks)} values, '
                             f'one for each block, got {drop_paths!r}')
        check_conv_cfg(conv_cfg)
        super().__init__([
            TransformerBranch(*(Block(
                dim, heads, whole(ratio), rate, with_cp=with_cp,
                window_size=window, rel_pos_bias=with_rpe)
                for rate in rates[:blocks]))
            for blocks, _, dim, heads, window, ratio in zip(*given)
        ], Fusion(num_channels, range(num_branches if multiscale_output else
                                      1),
                  translate_upsample(upsample_cfg or {}), True)
        )  # yapf: disable
        apply_norm_cfg(self, norm_cfg or {})
        apply_transformer_norm_cfg(self, transformer_norm_cfg or {})

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        if len(self.branches) == 1:  # nothing to fuse
            return [self.branches[0](xs[0])]
        return super().forward(xs)
