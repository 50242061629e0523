# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Swin Transformer, also with HRFormer's feed-forward (Table 8).

Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted
Windows, ICCV 2021, https://arxiv.org/abs/2103.14030

Table 8 of HRFormer's paper compares Swin-T, and Intrawin-T, which is Swin-T
without shifted windows, with and without the 3x3 depth-wise convolution in the
feed-forward. The blocks are HRFormer's. Maps are [B, H, W, C] inside and
[B, C, H, W] outside, as in ``hrformer``.
"""
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...checkpoints import find_file, read_checkpoint
from ...checkpoints.convert import first_few, unwrap
from ...core.arch import check_arguments, check_out_indices
from ...core.blocks import Block
from ...registry import MODELS


def pad_to_multiple(x: Tensor, size: int) -> Tensor:
    """Pad [B, C, H, W] with zeros on the bottom and right."""
    H, W = x.shape[2:]
    return F.pad(x, (0, -W % size, 0, -H % size))


def draw_linear(layer: nn.Linear):
    """Initialise a linear layer as in the original code."""
    nn.init.trunc_normal_(layer.weight, std=.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class PatchEmbed(nn.Module):
    """Project patches of 4x4 pixels: [B, C, H, W] to [B, H/4, W/4, dim]."""

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        self.projection = nn.Conv2d(in_channels, dim, 4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection(pad_to_multiple(x, 4))
        return self.norm(x.permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Merge 2x2 neighbours: [B, H, W, dim] to [B, H/2, W/2, 2*dim].

    Before the projection, the four values of each channel are adjacent, as in
    MMPretrain; the original code concatenates the neighbours.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x.permute(0, 3, 1, 2), 2)
        x = F.pixel_unshuffle(x, 2).permute(0, 2, 3, 1)  # [B, H/2, W/2, 4*dim]
        return self.reduction(self.norm(x))


class Stage(nn.Module):
    """Blocks of one resolution, then patch merging unless it is the last.

    Returns the map [B, H, W, C] of the blocks and the input of the next stage.
    """

    def __init__(self, blocks: Sequence[Block], dim: int, is_last: bool):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = None if is_last else PatchMerging(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(x)
        return x, x if self.downsample is None else self.downsample(x)


# MMPretrain's names: names of HRFormer's blocks.
RENAMED = {
    '.attn.w_msa.': '.attn.attn.',
    '.ffn.layers.0.0.': '.ffn.fc1.',
    '.ffn.layers.1.': '.ffn.fc2.',
}
NEW = re.compile(r'norm\d\.')  # output norms, which classifiers lack


def rename_swin(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of MMPretrain's Swin to our names."""
    renamed = {}
    for name, value in tensors.items():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        if not name.endswith('relative_position_index'):
            renamed[name] = value
    return renamed


def rename_in_place(state_dict: dict[str, Tensor], *args):
    """Rename the tensors of a Swin or a whole model (load hook)."""
    renamed = rename_swin(state_dict)
    state_dict.clear()
    state_dict.update(renamed)


@MODELS.register_module()
class SwinTransformer(BaseModule):
    """Swin-T and its variants of Table 8.

    Maps images [B, in_channels, H, W] of any size to a tuple with the
    layer-normed map of each stage in ``out_indices``; stage i has stride
    4 * 2**i, sizes rounded up, and ``dim * 2**i`` channels. Maps are padded to
    whole windows evenly on both sides, as in HRFormer; the original pads at
    the end.

    Args:
        dim: Number of channels of the first stage.
        depths: Number of blocks of each of the four stages.
        heads: Number of attention heads of each stage.
        in_channels: Number of channels of the image.
        out_indices: Stages to output, finest first.
        window_size: Height and width of the attention windows.
        drop_path_rate: Stochastic depth of the deepest block; it grows
            linearly from 0.
        ffn: ``'mlp'`` is Swin's; ``'dwconv'`` is HRFormer's; ``'nodw'`` is
            HRFormer's without its depth-wise convolution.
        attention: ``'shifted'`` is Swin's; ``'window'`` shifts no windows
            (Intrawin).
        with_cp: ``True`` recomputes every block in the backward pass to save
            memory, ``'ffn'`` only norms and activations inside the
            feed-forward layers.
        init_cfg: As in mmengine. ``dict(type='Pretrained', checkpoint=...)``
            loads a checkpoint of a whole model or of the backbone, ours or
            MMPretrain's, and fails if it does not cover the backbone.

    Raises:
        ValueError: If a value is invalid; the message names the valid ones.

    Example:
        >>> import torch
        >>> maps = SwinTransformer(ffn='dwconv')(torch.rand(1, 3, 64, 64))
        >>> [tuple(m.shape) for m in maps]
        [(1, 96, 16, 16), (1, 192, 8, 8), (1, 384, 4, 4), (1, 768, 2, 2)]
    """

    def __init__(self,
                 dim: int = 96,
                 depths: Sequence[int] = (2, 2, 6, 2),
                 heads: Sequence[int] = (3, 6, 12, 24),
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 window_size: int = 7,
                 drop_path_rate: float = 0.,
                 ffn: str = 'mlp',
                 attention: str = 'shifted',
                 with_cp: bool | str = False,
                 init_cfg: dict | None = None):
        super().__init__(deepcopy(init_cfg))
        if len(depths) != 4 or len(heads) != 4:
            raise ValueError('depths and heads must have one number for each '
                             f'of 4 stages, got {depths!r} and {heads!r}')
        if not 0 <= drop_path_rate < 1:
            raise ValueError('drop_path_rate must be in [0, 1), got '
                             f'{drop_path_rate!r}')
        self.out_indices = check_out_indices(out_indices)
        self.ffn, self.attention, self.with_cp = check_arguments(
            ffn=ffn, attention=attention, with_cp=with_cp)
        self.window_size = window_size
        dims = [dim * 2**i for i in range(4)]
        last = max(sum(depths) - 1, 1)
        rates = iter(drop_path_rate * i / last for i in range(sum(depths)))
        self.patch_embed = PatchEmbed(in_channels, dim)
        self.stages = nn.ModuleList(
            Stage([self.build_block(c, h, next(rates), i) for i in range(n)],
                  c, c == dims[-1]) for c, h, n in zip(dims, heads, depths))
        for i in self.out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(dims[i]))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                draw_linear(module)
        self._register_load_state_dict_pre_hook(rename_in_place)

    def build_block(self, dim: int, heads: int, rate: float, i: int) -> Block:
        """Build block ``i`` of a stage; every second one shifts windows."""
        is_shifted = self.attention == 'shifted' and i % 2
        return Block(
            dim,
            heads,
            drop_path=rate,
            ffn=self.ffn,
            with_cp=self.with_cp,
            eps=1e-5,
            window_size=self.window_size,
            shift=self.window_size // 2 if is_shifted else 0)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps, x = [], self.patch_embed(x)
        for i, stage in enumerate(self.stages):
            out, x = stage(x)
            if i in self.out_indices:
                out = getattr(self, f'norm{i}')(out)
                maps.append(out.permute(0, 3, 1, 2))
        return tuple(maps)

    def init_weights(self):
        """Load pretrained or initialise random weights by ``init_cfg``.

        Raises:
            FileNotFoundError: If the file of pretrained weights is not found.
            RuntimeError: If it does not cover the backbone.
        """
        if isinstance(self.init_cfg, dict) and \
                self.init_cfg['type'] == 'Pretrained':
            self.load_backbone(self.init_cfg['checkpoint'])
        else:
            super().init_weights()

    def load_backbone(self, checkpoint: str):
        path = find_file(checkpoint)
        tensors: Mapping[str, Tensor] = unwrap(read_checkpoint(path))
        inside = {k[len('backbone.'):]: v for k, v in tensors.items()
                  if k.startswith('backbone.')}  # yapf: disable
        tensors = rename_swin(inside or tensors)
        wrong = [k for k, mine in self.state_dict().items() if not NEW.match(k)
                 and (k not in tensors or tensors[k].shape != mine.shape)]
        if wrong:
            raise RuntimeError(
                f'{path.name} does not fit the backbone, nothing was loaded: '
                f'{len(wrong)} tensors are missing or of another shape'
                f'{first_few(wrong)}')
        self.load_state_dict(tensors, strict=False)
        print_log(f'{path.name}: weights of the backbone loaded', 'current')
