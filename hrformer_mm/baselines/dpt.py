# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""DPT-Hybrid for MMSegmentation: backbone, head, and loading."""
from copy import deepcopy
from typing import Any, Dict, List, Optional, Sequence

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.dpt_head import DPTHead
from torch import Tensor, nn

from ..registry import MODELS
from . import hybrid_vit


def theirs_to_ours() -> Dict[str, str]:
    """Prefixes in the authors' files and the ones of this model.

    Their fusion blocks are numbered from the finest map, MMSegmentation's from
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


# Tensors of theirs on which the output does not depend.
UNUSED = ('pretrained.model.norm.', 'pretrained.model.head.', 'auxlayer.',
          'scratch.refinenet4.resConfUnit1.')


@MODELS.register_module()
class HybridViT(hybrid_vit.HybridViT, BaseModule):
    """:class:`hrformer_mm.baselines.hybrid_vit.HybridViT` as a backbone.

    Args:
        init_cfg: As in mmengine.
        **kwargs: See there.
    """

    def __init__(self, init_cfg: Optional[dict] = None, **kwargs):
        super().__init__(**kwargs)
        self.init_cfg = deepcopy(init_cfg)


class Reassemble(BaseModule):
    """Make maps of the four levels of a hybrid ViT.

    Those of the ResNet stay as they are; tokens join with the class token, and
    the last level goes down to stride 32.

    Args:
        dim: Channels of the tokens.
        channels: Channels of the maps made of them.
    """

    def __init__(self, dim: int, channels: int):
        super().__init__()
        self.readout_projects = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU())
            for _ in range(2))
        self.projects = nn.ModuleList(
            nn.Conv2d(dim, channels, 1) for _ in range(2))
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, levels: Sequence[Sequence[Tensor]]) -> List[Tensor]:
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


def rename_official(state_dict: Dict[str, Tensor], prefix: str, *args: Any):
    """Load hook: the authors' names become ours."""
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
