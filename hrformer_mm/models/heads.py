# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer's segmentation head for MMSegmentation."""
from typing import Any, Dict, List, Optional, Sequence, Union

import torch.nn.functional as F
from mmseg.models.builder import build_loss
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import accuracy
from torch import Tensor

from ..core.losses import two_classes
from ..core.ocr import OCR
from ..registry import MODELS


@MODELS.register_module()
class OCRHead(OCR, BaseDecodeHead):
    """:class:`hrformer_mm.core.ocr.OCR` with MMSegmentation's words.

    It is one decode head for ``EncoderDecoder``, its auxiliary branch inside:
    MMSegmentation's cascade of two heads is a list, which configs replace and
    never merge, and joins the maps twice.

    Args:
        in_channels: Channels of the maps that the backbone gives.
        num_classes: As in labels.
        channels: Inside.
        ocr_channels: Inside the attention.
        aux_channels: Inside the auxiliary branch, by default ``channels``.
        dropout_ratio: Of whole channels before the last convolution.
        kernel_size: 3 is the official v2, 7 with groups v3.
        groups: Of the two large convolutions.
        loss_decode: Of the logits.
        loss_aux: Of the auxiliary logits, or ``None`` to train without.
        align_corners: For all resizing, also of images in
            ``EncoderDecoder``.
        init_cfg: As in mmengine; ``None`` keeps torch's own initial values,
            as the official code does.
        **kwargs: ``out_channels``, ``threshold`` and ``ignore_index`` of
            ``BaseDecodeHead``.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 num_classes: int,
                 channels: int = 512,
                 ocr_channels: int = 256,
                 aux_channels: Optional[int] = None,
                 dropout_ratio: float = 0.05,
                 kernel_size: int = 3,
                 groups: int = 1,
                 loss_decode: Union[dict, List[dict]] = dict(
                     type='hrformer_mm.OHEMCrossEntropyLoss'),
                 loss_aux: Optional[dict] = dict(
                     type='hrformer_mm.PixelCrossEntropyLoss',
                     loss_weight=0.4),
                 align_corners: bool = True,
                 init_cfg: Union[None, dict, List[dict]] = None,
                 **kwargs):
        BaseDecodeHead.__init__(
            self,
            in_channels=in_channels,
            channels=channels,
            num_classes=num_classes,
            dropout_ratio=dropout_ratio,
            in_index=tuple(range(len(in_channels))),
            input_transform='resize_concat',
            loss_decode=loss_decode,
            align_corners=align_corners,
            init_cfg=init_cfg,
            **kwargs)
        self.add_layers(
            sum(in_channels), self.out_channels, channels, ocr_channels,
            aux_channels, dropout_ratio, kernel_size, groups)
        self.loss_aux = loss_aux and build_loss(loss_aux)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits [B, out_channels, H, W] of stride 4."""
        return super().forward(inputs)[0]

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: list,
             train_cfg: Any) -> Dict[str, Tensor]:
        """Losses and accuracies of the main and the auxiliary logits.

        They are computed in float32, also in mixed precision.
        """
        logits, guess = (x.float() for x in OCR.forward(self, inputs))
        result = self.loss_by_feat(logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        if self.out_channels == 1:  # MMSegmentation's takes all for class 0
            result['acc_seg'] = self.accuracy(
                self.enlarge(logits, labels), labels)
        if self.loss_aux is not None:
            guess = self.enlarge(guess, labels)
            result['loss_aux'] = self.loss_aux(
                guess, labels, ignore_index=self.ignore_index)
            result['acc_aux'] = self.accuracy(guess, labels)
        return result

    def enlarge(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits of the size of labels [B, H, W]."""
        return F.interpolate(
            logits,
            labels.shape[-2:],
            mode='bilinear',
            align_corners=self.align_corners)

    def accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Percentage of labelled pixels, [1]."""
        return accuracy(
            two_classes(logits), labels, ignore_index=self.ignore_index)
