# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""TransPose and TokenPose as necks before MMPose's ``HeatmapHead``."""
from copy import deepcopy
from typing import Any, Optional

from mmengine.model import BaseModule
from torch import nn

from ..registry import MODELS
from . import token_heads


class OnFinestMap(nn.Module):
    """Makes a network on one map a neck: it gets maps and gives a tuple."""

    def __init__(self, init_cfg: Optional[dict] = None, **kwargs):
        super().__init__(**kwargs)
        self.init_cfg = deepcopy(init_cfg)

    def forward(self, xs: Any) -> Any:
        return (super().forward(xs[0]), )


@MODELS.register_module()
class TransPoseNeck(OnFinestMap, token_heads.TransPose, BaseModule):
    """:class:`hrformer_mm.baselines.token_heads.TransPose` on the finest map.

    Args:
        init_cfg: As in mmengine.
        **kwargs: See there.
    """


@MODELS.register_module()
class TokenPoseNeck(OnFinestMap, token_heads.TokenPose, BaseModule):
    """:class:`hrformer_mm.baselines.token_heads.TokenPose` on the finest map.

    What it gives are heat maps already, so the head that decodes them has
    ``final_layer=None``.

    Args:
        init_cfg: As in mmengine.
        **kwargs: See there.
    """
