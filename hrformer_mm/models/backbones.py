# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer as a registered OpenMMLab backbone."""
from copy import deepcopy
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints import schemes  # noqa: F401  registers *.safetensors
from ..checkpoints import (await_owner, load_pretrained, match_state_dict,
                           write_truths)
from ..checkpoints.loading import current_task
from ..core import hrformer
from ..core.arch import Arch
from ..registry import MODELS

STAGES = (('conv1', 'bn1', 'conv2', 'bn2'), ('layer1', 'transition1'),
          ('stage2', 'transition2'), ('stage3', 'transition3'), ('stage4', ))


# Our word, the names that MMPose's and the official configs use for it in a
# stage, and what holds where none is there.
EXTRA_WORDS = dict(
    channels=(('num_channels', ), None),
    heads=(('num_heads', ), None),
    blocks=(('num_blocks', ), None),
    windows=(('window_sizes', 'num_window_sizes'), 7),
    mlp_ratios=(('mlp_ratios', 'num_mlp_ratios'), 4))


def branches(stages: Sequence[Mapping], names: Sequence[str],
             default: Optional[int]) -> Tuple[int, ...]:
    """A word of ``extra`` for the four branches, alike in all stages.

    Raises:
        ValueError: If it is missing or a stage disagrees with the last.
    """
    values: List[Tuple[int, ...]] = []
    for n, stage in enumerate(stages, start=2):
        found = [stage[name] for name in names if name in stage]
        if found:
            values.append(tuple(found[0]))
        elif default is None:
            raise ValueError(f'extra.stage{n} must have {names[0]}')
        else:
            values.append((default, ) * n)
    for n, value in enumerate(values, start=2):
        if value != values[-1][:n]:
            raise ValueError(
                f'{names[0]} of a branch must be the same in all stages, got '
                f'{value} in stage{n} and {values[-1]} in stage4')
    return values[-1]


def same(values: Sequence, what: str):
    """The one value of a per-branch list; HRFormer has no other."""
    if len(set(values)) != 1:
        raise ValueError(f'{what} must be equal in all branches, got '
                         f'{list(values)}')
    return values[0]


def translate_extra(extra: Mapping[str, Any]) -> Dict[str, Any]:
    """Arguments of our HRFormer that mean the same as MMPose's ``extra``.

    Args:
        extra: As in the configs of MMPose 1.x; it is not changed.

    Raises:
        ValueError: If a stage is missing or asks for what HRFormer has not.
    """
    missing = [s for s in ('stage2', 'stage3', 'stage4') if s not in extra]
    if missing:
        raise ValueError(f'extra must describe stage2, stage3 and stage4; '
                         f'missing {missing}')
    stages = [extra[s] for s in ('stage2', 'stage3', 'stage4')]
    last = stages[-1]
    words = {
        key: branches(stages, names, default)
        for key, (names, default) in EXTRA_WORDS.items()
    }
    arch = dict(
        channels=words['channels'],
        heads=words['heads'],
        modules=tuple(s['num_modules'] for s in stages),
        blocks=same(words['blocks'], 'num_blocks'),
        mlp_ratio=int(same(words['mlp_ratios'], 'mlp_ratios')))
    args = dict(
        arch=arch,
        out_indices=(0, 1, 2, 3) if last.get('multiscale_output') else (0, ),
        window_size=words['windows'],
        drop_path_rate=extra.get('drop_path_rate', 0.),
        rel_pos_bias=extra.get('with_rpe', True),
        mask_padding=extra.get('with_pad_mask', False),
        upsample=extra.get('upsample', dict(mode='bilinear'))['mode'])
    print_log(
        f'HRFormer: extra was read as {args}; these are the arguments to '
        'write in new configs', 'current')
    return args


@MODELS.register_module()
class HRFormer(hrformer.HRFormer, BaseModule):
    """:class:`hrformer_mm.core.HRFormer` with OpenMMLab's words.

    Args:
        frozen_stages: Stages from the stem (0) up to this one are not
            trained and keep their batch-norm statistics; -1 trains all.
        norm_eval: Keep the statistics of all batch norms while training.
        allow_random_head: Predict although the loaded checkpoint has no
            tensors for the head of the model, which is an error otherwise.
        init_cfg: As in mmengine. ``dict(type='Pretrained', checkpoint=...)``
            takes any HRFormer checkpoint that
            :mod:`hrformer_mm.checkpoints` knows and fails if it does not
            cover the backbone.
        extra: The nested dict of MMPose's configs, instead of the arguments
            above it.
        norm_cfg: Only with ``extra``; of type BN or SyncBN.
        transformer_norm_cfg: Only with ``extra``, and without effect: norms of
            blocks are layer norms.
        **kwargs: See :class:`hrformer_mm.core.HRFormer`.

    Raises:
        ValueError: For values that are not among the choices.
    """

    def __init__(self,
                 arch: Union[str, Arch, Mapping] = 'base',
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 allow_random_head: bool = False,
                 init_cfg: Union[None, dict, List[dict]] = None,
                 extra: Optional[Mapping] = None,
                 norm_cfg: Optional[Mapping] = None,
                 transformer_norm_cfg: Optional[Mapping] = None,
                 **kwargs):
        if extra is not None:
            kwargs = {**translate_extra(extra), **kwargs}
            arch = kwargs.pop('arch')
        elif norm_cfg is not None or transformer_norm_cfg is not None:
            raise ValueError("norm_cfg is for MMPose's extra=...; to train "
                             "with synchronised norms set sync_bn='torch' at "
                             'the top of the config')
        if frozen_stages not in range(-1, 5):
            raise ValueError(f'frozen_stages must be -1 (none), 0 (the stem) '
                             f'or a stage up to 4, got {frozen_stages!r}')
        super().__init__(arch, **kwargs)
        self.init_cfg = deepcopy(init_cfg)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.allow_random_head = allow_random_head
        self.task = current_task()
        if norm_cfg is not None and norm_cfg['type'] == 'SyncBN':
            nn.SyncBatchNorm.convert_sync_batchnorm(self)
        self._register_load_state_dict_pre_hook(
            match_state_dict, with_module=True)
        self._register_state_dict_hook(write_truths)
        for module in self.frozen_modules():
            module.requires_grad_(False)
        await_owner(self)

    def frozen_modules(self) -> List[nn.Module]:
        return [
            getattr(self, name)
            for names in STAGES[:self.frozen_stages + 1] for name in names
            if hasattr(self, name)  # three branches end before stage 4
        ]

    def init_weights(self):
        """Load or draw weights as ``init_cfg`` says.

        Raises:
            RuntimeError: If pretrained weights do not cover the backbone.
            FileNotFoundError: If their file is nowhere; says where it was
                looked for.
        """
        cfg = self.init_cfg
        if isinstance(cfg, dict) and cfg['type'] == 'Pretrained':
            load_pretrained(self, **{k: v
                                     for k, v in cfg.items() if k != 'type'})
        else:
            super().init_weights()

    def train(self, mode: bool = True) -> 'HRFormer':
        super().train(mode)
        if mode:
            frozen = self.frozen_modules() + [
                m for m in self.modules()
                if self.norm_eval and isinstance(m, _BatchNorm)
            ]
            for module in frozen:
                module.eval()
        return self
