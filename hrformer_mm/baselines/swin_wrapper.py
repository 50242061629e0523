# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Backbones of the paper's ablations that are not an HRFormer."""
import re
from copy import deepcopy
from typing import Any, Dict, Mapping, Optional

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from ..checkpoints import find_file, read_checkpoint
from ..checkpoints.convert import first_few, unwrap
from ..registry import MODELS
from . import swin

# MMPretrain's names of what HRFormer's blocks call otherwise.
RENAMED = {
    '.attn.w_msa.': '.attn.attn.',
    '.ffn.layers.0.0.': '.ffn.fc1.',
    '.ffn.layers.1.': '.ffn.fc2.',
}
NEW = re.compile(r'norm\d\.')  # norms of outputs that ImageNet does not need


def rename(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Weights of MMPretrain's Swin, or of ours, under our names."""
    renamed = {}
    for name, value in tensors.items():
        for theirs, ours in RENAMED.items():
            name = name.replace(theirs, ours)
        if not name.endswith('relative_position_index'):
            renamed[name] = value
    return renamed


def rename_in_place(state_dict: Dict[str, Tensor], *args):
    """Load hook of a Swin, for whole models too."""
    renamed = rename(state_dict)
    state_dict.clear()
    state_dict.update(renamed)


@MODELS.register_module()
class SwinTransformer(swin.SwinTransformer, BaseModule):
    """Wrap :class:`.swin.SwinTransformer` as a backbone of OpenMMLab.

    It reads checkpoints of its own and of MMPretrain's Swin-T.

    Args:
        init_cfg: As in mmengine. ``dict(type='Pretrained', checkpoint=...)``
            takes a checkpoint of a whole model or of the backbone and fails
            if it does not cover the backbone.
        **kwargs: See the class above.
    """

    def __init__(self, init_cfg: Optional[dict] = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.init_cfg = deepcopy(init_cfg)
        self._register_load_state_dict_pre_hook(rename_in_place)

    def init_weights(self):
        """Draw weights as ``init_cfg`` says, or load all or none.

        Raises:
            FileNotFoundError: If the file of pretrained weights is nowhere.
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
        tensors = rename(inside or tensors)
        wrong = [k for k, mine in self.state_dict().items() if not NEW.match(k)
                 and (k not in tensors or tensors[k].shape != mine.shape)]
        if wrong:
            raise RuntimeError(
                f'{path.name} does not fit the backbone, nothing was loaded: '
                f'{len(wrong)} tensors are missing or of another shape'
                f'{first_few(wrong)}')
        self.load_state_dict(tensors, strict=False)
        print_log(f'{path.name}: weights of the backbone loaded', 'current')
