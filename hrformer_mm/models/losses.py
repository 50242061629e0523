# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Pixel-wise cross-entropy losses for MMSegmentation's heads."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core import losses
from ..registry import MODELS


@MODELS.register_module()
class PixelCrossEntropyLoss(nn.Module):
    """:func:`hrformer_mm.core.losses.cross_entropy`.

    MMSegmentation's ``CrossEntropyLoss`` differs from the official loss:
    without class weights its mean includes ignored pixels, and with them it
    fails on ignored pixels.

    Args:
        class_weight: Weight of each class.
        loss_weight: Weight of the loss.
        loss_name: Name in logs; only losses whose name begins with ``loss``
            are trained on.
    """

    class_weight: Tensor | None

    def __init__(self,
                 class_weight: Sequence[float] | None = None,
                 loss_weight: float = 1.,
                 loss_name: str = 'loss_ce'):
        super().__init__()
        self.loss_weight, self.loss_name = loss_weight, loss_name
        weights = torch.tensor(class_weight) if class_weight else None
        self.register_buffer('class_weight', weights, persistent=False)

    def forward(self,
                logits: Tensor,
                labels: Tensor,
                weight: Tensor | None = None,
                ignore_index: int | None = 255) -> Tensor:
        """Compute the loss of logits [B, K, H, W] for labels [B, H, W].

        Raises:
            ValueError: If a sampler of the head passes pixel weights, or the
                number of class weights is wrong.
        """
        classes = max(logits.shape[1], 2)
        if self.class_weight is not None and len(
                self.class_weight) != classes:
            raise ValueError(f'class_weight must have {classes} numbers, got '
                             f'{len(self.class_weight)}')
        if weight is not None:
            raise ValueError(f'{type(self).__name__} selects pixels itself; '
                             'set sampler=None in the head')
        return self.loss_weight * self.reduce(logits, labels, ignore_index)

    def reduce(self, logits: Tensor, labels: Tensor,
               ignore_index: int | None) -> Tensor:
        return losses.cross_entropy(logits, labels, self.class_weight,
                                    ignore_index)


@MODELS.register_module()
class OHEMCrossEntropyLoss(PixelCrossEntropyLoss):
    """:func:`hrformer_mm.core.losses.ohem_cross_entropy`.

    MMSegmentation's ``OHEMPixelSampler`` is not equivalent: it multiplies
    ``min_kept`` by the batch size, and the mean divides by all pixels.

    Args:
        thresh: Probability of the true class below which a pixel is hard.
        min_kept: Minimum number of pixels to keep in the batch of a GPU.
        loss_name: See :class:`PixelCrossEntropyLoss`.
        **kwargs: See :class:`PixelCrossEntropyLoss`.
    """

    def __init__(self,
                 thresh: float = 0.9,
                 min_kept: int = 100000,
                 loss_name: str = 'loss_ohem',
                 **kwargs):
        super().__init__(loss_name=loss_name, **kwargs)
        self.thresh, self.min_kept = thresh, min_kept

    def reduce(self, logits: Tensor, labels: Tensor,
               ignore_index: int | None) -> Tensor:
        return losses.ohem_cross_entropy(logits, labels, self.thresh,
                                         self.min_kept, self.class_weight,
                                         ignore_index)
