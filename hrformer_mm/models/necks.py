# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer's representation head as a neck for MMPretrain."""
from collections.abc import Sequence
from copy import deepcopy

from mmengine.model import BaseModule
from mmpretrain.models.necks import GlobalAveragePooling
from torch import Tensor

from ..core.cls_head import RepresentationHead
from ..registry import MODELS


@MODELS.register_module()
class HRFormerClsNeck(RepresentationHead, BaseModule):
    """Representation head with global average pooling.

    See :class:`hrformer_mm.core.cls_head.RepresentationHead`. Maps the four
    maps of the backbone to a tuple with one tensor, [B, 2048] for MMPretrain's
    ``LinearClsHead``. MMPretrain's pooling is included because configs cannot
    merge lists: with two necks in a list every size would repeat both. The map
    before pooling, which class activation maps need, is the output of
    ``neck.final_layer``.

    Args:
        in_channels: Numbers of channels of the four maps, finest first.
        dw_conv: Make 3x3 convolutions depth-wise; HRNet's are dense.
        pool: Pool the map; otherwise the map [B, 2048, H, W] is returned.
        init_cfg: As in mmengine.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 dw_conv: bool = True,
                 pool: bool = True,
                 init_cfg: dict | None = None):
        super().__init__(in_channels, dw_conv)
        self.init_cfg = deepcopy(init_cfg)
        self.gap = GlobalAveragePooling() if pool else None

    def forward(  # type: ignore[override]
            self, xs: Sequence[Tensor]) -> tuple[Tensor]:
        x = super().forward(xs)
        return (x if self.gap is None else self.gap(x), )
