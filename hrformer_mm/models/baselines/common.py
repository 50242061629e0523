# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Modules shared by several baselines."""
from copy import deepcopy
from typing import Any

from torch import Tensor, nn


class PositionedLayer(nn.TransformerEncoderLayer):
    """Encoder layer that adds positions to queries and keys."""

    def forward(  # type: ignore[override]
            self, x: Tensor, position: Tensor) -> Tensor:
        q = x + position
        attended = self.self_attn(q, q, x, need_weights=False)[0]
        x = self.norm1(x + self.dropout1(attended))
        hidden = self.dropout(self.activation(self.linear1(x)))
        return self.norm2(x + self.dropout2(self.linear2(hidden)))


class OnFinestMap(nn.Module):
    """Mixin that applies a network to the finest map, as a neck.

    Args:
        init_cfg: As in mmengine.
        **kwargs: Arguments of the network.
    """

    def __init__(self, init_cfg: dict | None = None, **kwargs):
        super().__init__(**kwargs)
        self.init_cfg = deepcopy(init_cfg)

    def forward(self, xs: Any) -> Any:
        return (super().forward(xs[0]), )
