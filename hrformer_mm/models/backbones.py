# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer as a registered OpenMMLab backbone."""
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints import (
    await_owner,
    load_pretrained,
    match_state_dict,
    schemes,  # noqa: F401  registers *.safetensors
    write_semantics,
)
from ..checkpoints.loading import current_task
from ..core import hrformer
from ..core.arch import Arch
from ..core.blocks import Residual
from ..registry import MODELS
from .extra import (
    apply_norm_cfg,
    apply_transformer_norm_cfg,
    check_conv_cfg,
    is_extra,
    translate_extra,
    translate_pretrained,
)
from .hrformer_modules import HRFomerModule, HRFormerBlock  # noqa: F401

STAGES = (('conv1', 'bn1', 'conv2', 'bn2'), ('layer1', 'transition1'),
          ('stage2', 'transition2'), ('stage3', 'transition3'), ('stage4', ))


@MODELS.register_module()
class HRFormer(hrformer.HRFormer, BaseModule):
    """:class:`hrformer_mm.core.HRFormer` as a backbone of OpenMMLab.

    Args:
        arch: As in :class:`hrformer_mm.core.HRFormer`, or MMPose's ``extra``.
        in_channels: Number of channels of the image.
        frozen_stages: Stages from the stem (0) up to this one are not
            trained and keep their batch-norm statistics; -1 trains all.
        norm_eval: Freeze the statistics of all batch norms in training.
        allow_random_head: Allow predictions if the loaded checkpoint has no
            tensors for the head of the model. Otherwise they raise an error.
        init_cfg: As in mmengine. ``dict(type='Pretrained', checkpoint=...)``
            loads any HRFormer checkpoint that :mod:`hrformer_mm.checkpoints`
            supports and fails if it does not cover the backbone.
        extra: Nested dict of MMPose's configs, instead of ``arch``.
        norm_cfg: Batch norms, only with ``extra``: type BN or SyncBN, with
            ``eps``, ``momentum`` and ``requires_grad``.
        transformer_norm_cfg: Layer norms, only with ``extra``: type LN, with
            ``eps`` and ``requires_grad``.
        conv_cfg: ``None`` or plain convolutions, as MMPose's default.
        zero_init_residual: Initialise the residual blocks of convolutions as
            identities.
        pretrained: Checkpoint, as MMSegmentation passes it to backbones.
        **kwargs: See :class:`hrformer_mm.core.HRFormer`.

    Raises:
        ValueError: If a value is invalid; the message names the valid ones.
    """

    def __init__(self,
                 arch: str | Arch | Mapping = 'base',
                 in_channels: int = 3,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 allow_random_head: bool = False,
                 init_cfg: None | dict | list[dict] = None,
                 extra: Mapping | None = None,
                 norm_cfg: Mapping | None = None,
                 transformer_norm_cfg: Mapping | None = None,
                 conv_cfg: Mapping | None = None,
                 zero_init_residual: bool = False,
                 pretrained: str | None = None,
                 **kwargs):
        check_conv_cfg(conv_cfg)
        if extra is None and is_extra(arch):
            extra = cast(Mapping, arch)
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
        super().__init__(arch, in_channels, **kwargs)
        self.init_cfg = deepcopy(translate_pretrained(pretrained, init_cfg))
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.allow_random_head = allow_random_head
        self.task = current_task()
        self.zero_init_residual = zero_init_residual
        apply_norm_cfg(self, norm_cfg or {})
        apply_transformer_norm_cfg(self, transformer_norm_cfg or {})
        self._register_load_state_dict_pre_hook(
            match_state_dict, with_module=True)
        self._register_state_dict_hook(write_semantics)
        for module in self.frozen_modules():
            module.requires_grad_(False)
        await_owner(self)

    def get_layer_depth(self,
                        param_name: str,
                        prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning rates.

        The stem has depth 0, the first stage 1, and each block of a branch
        one more; fusion and transitions have the depth of the blocks before
        them.

        Args:
            param_name: Name of the parameter.
            prefix: Prefix of the names of the backbone; other parameters
                belong to the last layer.

        Returns:
            The depth, and the number of layers.
        """
        modules, blocks = self.arch.modules, self.arch.blocks
        last = 2 + sum(modules) * blocks
        if not param_name.startswith(prefix):
            return last, last + 1
        stage, *rest = param_name[len(prefix):].split('.')
        number = int(stage[-1]) if stage[-1].isdigit() else 0
        if stage.startswith('layer') or stage == 'transition1':
            return 1, last + 1
        if stage.startswith('transition'):  # after the stage of its number
            return 1 + sum(modules[:number - 1]) * blocks, last + 1
        if not stage.startswith('stage'):
            return 0, last + 1
        before = sum(modules[:number - 2]) + int(rest[0])
        is_block = rest[1] == 'branches'
        block = int(rest[3]) + 1 if is_block else blocks
        return 1 + before * blocks + block, last + 1

    def frozen_modules(self) -> list[nn.Module]:
        return [
            getattr(self, name)
            for names in STAGES[:self.frozen_stages + 1] for name in names
            if hasattr(self, name)  # three branches end before stage 4
        ]

    def init_weights(self):
        """Load pretrained or initialise random weights by ``init_cfg``.

        Raises:
            RuntimeError: If pretrained weights do not cover the backbone.
            FileNotFoundError: If their file is not found; the message lists
                the places searched.
        """
        cfg = self.init_cfg
        if isinstance(cfg, dict) and cfg['type'] == 'Pretrained':
            load_pretrained(self, **{k: v
                                     for k, v in cfg.items() if k != 'type'})
            return
        super().init_weights()
        if self.zero_init_residual:
            for block in self.modules():
                if isinstance(block, Residual):
                    last: Any = getattr(block, 'bn3', None) or block.bn2
                    nn.init.zeros_(last.weight)

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
