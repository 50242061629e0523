# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Parts that several baselines share."""
from copy import deepcopy
from typing import Any, Optional

from torch import Tensor, nn


class PositionedLayer(nn.TransformerEncoderLayer):
    """An encoder layer that adds the position to queries and keys."""

    def forward(  # type: ignore[override]
            self, x: Tensor, position: Tensor) -> Tensor:
        q = x + position
        attended = self.self_attn(q, q, x, need_weights=False)[0]
        x = self.norm1(x + self.dropout1(attended))
        hidden = self.dropout(self.activation(self.linear1(x)))
        return self.norm2(x + self.dropout2(self.linear2(hidden)))


class OnFinestMap(nn.Module):
    """Make a network on one map a neck, which takes maps and returns a tuple.

    Args:
        init_cfg: As in mmengine.
        **kwargs: Arguments of the network.
    """

    def __init__(self, init_cfg: Optional[dict] = None, **kwargs):
        super().__init__(**kwargs)
        self.init_cfg = deepcopy(init_cfg)

    def forward(self, xs: Any) -> Any:
        return (super().forward(xs[0]), )
