# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""TransPose: a transformer encoder on the map of a convolutional stem.

Yang et al., TransPose: Keypoint Localization via Transformer, ICCV 2021,
https://arxiv.org/abs/2012.14214, which Table 3 compares HRFormer with. The
stem is HRNet-W48 up to stage 3. Letters: B batch, C channels, H and W of the
map.
"""
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...core.positions import sine_position
from ...registry import MODELS
from .common import OnFinestMap, PositionedLayer


class TransPose(nn.Module):
    """Transformer encoder on all pixels of a map.

    Maps [B, in_channels, H, W] to [B, dim, H, W], from which a 1x1 convolution
    predicts the heatmaps.

    Args:
        in_channels: Number of channels of the map.
        dim: Number of channels of the encoder.
        hidden: Channels inside its feed-forward layers.
        depth: Number of layers.
        heads: Number of attention heads.
        dropout: Dropout rate inside the layers.
    """

    def __init__(self,
                 in_channels: int,
                 dim: int = 96,
                 hidden: int = 192,
                 depth: int = 6,
                 heads: int = 1,
                 dropout: float = 0.1):
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, dim, 1, bias=False)
        self.layers = nn.ModuleList(
            PositionedLayer(dim, heads, hidden, dropout, batch_first=True)
            for _ in range(depth))
        for p in self.layers.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        hw = (x.shape[-2], x.shape[-1])
        position = sine_position(hw, x.shape[1], x.device).to(x.dtype)
        x = x.flatten(2).transpose(1, 2)  # [B, H*W, dim]
        for layer in self.layers:
            x = layer(x, position)
        return x.transpose(1, 2).unflatten(2, hw)


@MODELS.register_module()
class TransPoseNeck(OnFinestMap, TransPose, BaseModule):
    """:class:`TransPose` on the finest map, before MMPose's ``HeatmapHead``.

    Args:
        init_cfg: As in mmengine.
        **kwargs: See :class:`TransPose`.
    """
