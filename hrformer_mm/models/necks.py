# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer's representation head as a neck for MMPretrain."""
from copy import deepcopy
from typing import Optional, Sequence, Tuple

from mmengine.model import BaseModule
from mmpretrain.models.necks import GlobalAveragePooling
from torch import Tensor

from ..core.cls_head import RepresentationHead
from ..registry import MODELS


@MODELS.register_module()
class HRFormerClsNeck(RepresentationHead, BaseModule):
    """The representation head, then global average pooling.

    See :class:`hrformer_mm.core.cls_head.RepresentationHead`. Takes the four
    maps of the backbone and gives a tuple with one tensor, [B, 2048] for
    MMPretrain's ``LinearClsHead``. The pooling is MMPretrain's and lives in
    here because lists in configs are replaced and never merged: with two necks
    in a list every size would repeat both. The map before pooling, which class
    activation maps need, is the output of ``neck.final_layer``.

    Args:
        in_channels: Channels of the four maps, finest first.
        dw_conv: 3x3 convolutions are depth-wise; HRNet's are dense.
        pool: Without it the map [B, 2048, H, W] itself is given.
        init_cfg: As in mmengine.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 dw_conv: bool = True,
                 pool: bool = True,
                 init_cfg: Optional[dict] = None):
        super().__init__(in_channels, dw_conv)
        self.init_cfg = deepcopy(init_cfg)
        self.gap = GlobalAveragePooling() if pool else None

    def forward(  # type: ignore[override]
            self, xs: Sequence[Tensor]) -> Tuple[Tensor]:
        x = super().forward(xs)
        return (x if self.gap is None else self.gap(x), )
