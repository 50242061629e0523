# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""DPT-Hybrid for MMSegmentation: backbone (timm), head, and loading."""
from collections.abc import Sequence
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.dpt_head import DPTHead
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ...registry import MODELS

Level = tuple[Tensor, ...]


def theirs_to_ours() -> dict[str, str]:
    """Return the prefixes of this model by those of the authors' files.

    The authors number fusion blocks from the finest map, MMSegmentation from
    the coarsest.
    """
    head, names = 'decode_head.', {'pretrained.model.': 'backbone.'}
    for i in (0, 1):
        block = f'pretrained.act_postprocess{i + 3}.'
        ours = head + 'reassemble_blocks.'
        names[block + '0.project.0.'] = f'{ours}readout_projects.{i}.0.'
        names[block + '3.'] = f'{ours}projects.{i}.'
    names['pretrained.act_postprocess4.4.'] = ours + 'down.'
    for i in range(4):
        names[f'scratch.layer{i + 1}_rn.'] = f'{head}convs.{i}.conv.'
        block, ours = f'scratch.refinenet{4 - i}.', f'{head}fusion_blocks.{i}.'
        names[block + 'out_conv.'] = ours + 'project.conv.'
        for unit in (1, 2):
            for n in (1, 2):
                for layer in ('conv', 'bn'):
                    names[f'{block}resConfUnit{unit}.{layer}{n}.'] = (
                        f'{ours}res_conv_unit{unit}.conv{n}.{layer}.')
    for n, layer in ((0, 'project.conv.'), (1, 'project.bn.'),
                     (4, 'conv_seg.')):
        names[f'scratch.output_conv.{n}.'] = head + layer
    return names


# Tensors of the authors' files that do not affect the output.
UNUSED = ('pretrained.model.norm.', 'pretrained.model.head.', 'auxlayer.',
          'scratch.refinenet4.resConfUnit1.')


@MODELS.register_module()
class HybridViT(BaseModule):
    """timm's ``vit_base_r50_s16_384`` as the backbone of DPT-Hybrid.

    Maps images [B, 3, H, W] to the maps of the first two stages of its ResNet,
    (x, ) with strides 4 and 8, and the patches and the class token after two
    blocks, ([B, C, H/16, W/16], [B, C]). The learned positions are resized
    bilinearly, as by DPT's authors. timm's classifier, its norm and the blocks
    after the last hook are dropped, as they would get no gradient.

    Args:
        hooks: Indices of the two blocks whose tokens are returned.
        depth: Number of transformer blocks.
        embed_dim: Channels of a token.
        num_heads: Number of attention heads.
        img_size: Height and width of the images that the positions fit.
        drop_path_rate: Rate of stochastic depth in the last block.
        init_cfg: As in mmengine.

    Raises:
        ValueError: If ``hooks`` are not two blocks in order.
    """
    cls_token: nn.Parameter
    pos_embed: nn.Parameter
    patch_embed: Any
    blocks: nn.Sequential

    def __init__(self,
                 hooks: Sequence[int] = (8, 11),
                 depth: int = 12,
                 embed_dim: int = 768,
                 num_heads: int = 12,
                 img_size: int = 384,
                 drop_path_rate: float = 0.,
                 init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if len(hooks) != 2 or not 0 <= hooks[0] < hooks[1] < depth:
            raise ValueError(f'hooks must be two of the {depth} blocks in '
                             f'order, counted from 0, got {hooks!r}')
        vit: Any = timm.create_model(
            'vit_base_r50_s16_384', num_classes=0, depth=depth,
            embed_dim=embed_dim, num_heads=num_heads, img_size=img_size,
            drop_path_rate=drop_path_rate)
        self.hooks = tuple(hooks)
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.cls_token, self.pos_embed = vit.cls_token, vit.pos_embed
        self.patch_embed = vit.patch_embed
        self.blocks = vit.blocks[:hooks[1] + 1]

    def positions(self, hw: tuple[int, int]) -> Tensor:
        """Return the learned positions [1, 1 + N, C] for the size of a map."""
        return resample_abs_pos_embed(
            self.pos_embed, list(hw), list(self.grid),
            interpolation='bilinear', antialias=False)

    def forward(self, x: Tensor) -> tuple[Level, ...]:
        resnet = self.patch_embed.backbone
        x, maps = resnet.stem(x), []
        for stage in resnet.stages:
            x = stage(x)
            maps.append(x)
        x = self.patch_embed.proj(x)
        hw = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions(hw)
        levels: list[Level] = [(m, ) for m in maps[:2]]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.hooks:
                patches = x[:, 1:].transpose(1, 2).unflatten(2, hw)
                levels.append((patches, x[:, 0]))
        return tuple(levels)


class Reassemble(BaseModule):
    """Convert the four levels of a hybrid ViT to maps.

    The maps of the ResNet are unchanged; tokens are combined with the class
    token, and the last level is downsampled to stride 32.

    Args:
        dim: Number of channels of the tokens.
        channels: Number of channels of the maps computed from them.
    """

    def __init__(self, dim: int, channels: int):
        super().__init__()
        self.readout_projects = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU())
            for _ in range(2))
        self.projects = nn.ModuleList(
            nn.Conv2d(dim, channels, 1) for _ in range(2))
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, levels: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        maps = [levels[0][0], levels[1][0]]
        for (x, token), readout, project in zip(
                levels[2:], self.readout_projects, self.projects):
            hw = x.shape[2:]
            x = x.flatten(2).transpose(1, 2)
            x = readout(torch.cat([x, token[:, None].expand_as(x)], -1))
            maps.append(project(x.transpose(1, 2).unflatten(2, hw)))
        return maps[:3] + [self.down(maps[3])]


@MODELS.register_module()
class HybridDPTHead(DPTHead):
    """MMSegmentation's DPT head on the levels of :class:`HybridViT`.

    Args:
        in_channels: Channels of the four levels.
        embed_dims: Channels of the tokens.
        **kwargs: See ``DPTHead``; readout is ``'project'``.
    """

    def __init__(self,
                 in_channels: Sequence[int] = (256, 512, 768, 768),
                 embed_dims: int = 768,
                 **kwargs):
        super().__init__(
            in_channels=in_channels,
            embed_dims=embed_dims,
            post_process_channels=list(in_channels),
            readout_type='project',
            input_transform='multiple_select',
            in_index=(0, 1, 2, 3),
            **kwargs)
        self.reassemble_blocks = Reassemble(embed_dims, in_channels[-1])


@MODELS.register_module()
class DPTHybrid(EncoderDecoder):
    """``EncoderDecoder`` that also loads the checkpoints of DPT's authors."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._register_load_state_dict_pre_hook(rename_official)


def rename_official(state_dict: dict[str, Tensor], prefix: str, *args: Any):
    """Rename the tensors of the authors to our names (load hook)."""
    inside = [k for k in state_dict if k.startswith(prefix)]
    marks = (prefix + 'pretrained.', prefix + 'scratch.')
    if not any(k.startswith(marks) for k in inside):
        return
    names, renamed, dropped = theirs_to_ours(), 0, 0
    for key in inside:
        name = key[len(prefix):]
        old = next(filter(name.startswith, names), None)
        if name.startswith(UNUSED):
            del state_dict[key]
            dropped += 1
        elif old is not None:
            ours = prefix + names[old] + name[len(old):]
            state_dict[ours] = state_dict.pop(key)
            renamed += 1
    print_log(f'official DPT weights: {renamed} tensors renamed, {dropped} '
              'dropped', 'current')
