# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Random padding and test-time augmentation that MMSegmentation lacks."""
from typing import Any

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor
from torch import Tensor

from ..registry import MODELS


def random_shift(room: tuple[int, int, int, int]) -> tuple[int, int]:
    """Sample the rows and columns by which to move an image in its padding.

    Args:
        room: Padding on the left, right, top and bottom; the image is in the
            top left corner.
    """
    _, right, _, bottom = room
    return (int(torch.randint(bottom + 1, ())),
            int(torch.randint(right + 1, ())))


@MODELS.register_module()
class RandomPadPreProcessor(SegDataPreProcessor):
    """Place images smaller than the crop at random positions in training.

    MMSegmentation pads on the right and below. As there, images are padded
    after normalisation, so that padding is the mean.
    """

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        data = super().forward(data, training)
        if training:
            for image, sample in zip(data['inputs'], data['data_samples']):
                self.place(image, sample)
        return data

    @staticmethod
    def place(image: Tensor, sample: Any):
        """Move an image [C, H, W] and its labels inside their padding."""
        _, right, _, bottom = sample.padding_size
        down, along = random_shift(sample.padding_size)
        if down or along:
            for x in (image, sample.gt_sem_seg.data):
                x.copy_(x.roll((down, along), dims=(-2, -1)))
            sample.set_metainfo(
                dict(padding_size=(along, right - along, down,
                                   bottom - down)))


@MODELS.register_module()
class LogitsTTAModel(BaseTTAModel):
    """Average the logits of all scales and flips, as in the official code.

    MMSegmentation's model averages probabilities and keeps the maps of all
    views in memory; this one sums them up one by one. If one channel stands
    for two classes, MMSegmentation returns its probability, which is averaged.
    """

    def test_step(self, data: dict[str, list]) -> list[Any]:
        """Predict a batch; each entry of ``data`` is a list of views."""
        views = [{k: v[i] for k, v in data.items()}
                 for i in range(len(data['inputs']))]
        merged = self.module.test_step(views[0])
        for view in views[1:]:
            for total, sample in zip(merged, self.module.test_step(view)):
                total.seg_logits.data += sample.seg_logits.data
        return self.merge_preds([merged], len(views))

    def merge_preds(self,
                    data_samples_list: list[list[Any]],
                    views: int = 1) -> list[Any]:
        """Predict classes from the sums of the logits of ``views``."""
        for sample in data_samples_list[0]:
            logits = sample.seg_logits.data / views
            classes = logits.argmax(dim=0, keepdim=True)
            if len(logits) == 1:
                threshold = self.module.decode_head.threshold
                classes = (logits > threshold).long()
            sample.seg_logits = PixelData(data=logits)
            sample.pred_sem_seg = PixelData(data=classes)
        return data_samples_list[0]
