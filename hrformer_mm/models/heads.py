# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer's segmentation head for MMSegmentation."""
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from ..core.losses import pixel_accuracy
from ..core.ocr import OCR, check_maps
from ..registry import MODELS

PAD = 255  # label of padding in MMSegmentation


@MODELS.register_module()
class OCRHead(OCR, BaseDecodeHead):
    """:class:`hrformer_mm.core.ocr.OCR` as a decode head of MMSegmentation.

    The auxiliary head is part of this one head for ``EncoderDecoder``.
    MMSegmentation's cascade of two heads is a list, which configs cannot
    merge, and concatenates the maps twice.

    Args:
        in_channels: Numbers of channels of the maps of the backbone.
        num_classes: Number of classes.
        channels: Number of channels of the pixel and object representations.
        ocr_channels: Number of channels of queries, keys and values.
        aux_channels: Number of channels inside the auxiliary head, by default
            ``channels``.
        dropout_ratio: Dropout rate of channels before the last convolution.
        kernel_size: Kernel size of the two large convolutions: 3 in the
            official v2, 7 with groups in v3.
        groups: Number of groups of the two large convolutions.
        loss_decode: Loss of the logits.
        loss_aux: Loss of the auxiliary logits, or ``None``.
        align_corners: Whether to align corners in all resizing, also of images
            in ``EncoderDecoder``.
        out_channels: 1 for two classes with one logit; by default
            ``num_classes``.
        threshold: Threshold of the probability, with one logit.
        ignore_index: Label of pixels without a class. 255, with which
            MMSegmentation pads images, is ignored as well.
        init_cfg: As in mmengine; ``None`` keeps the default initial values of
            PyTorch, as the official code does.

    There is no ``sampler``: hard pixels are selected by the loss.

    Raises:
        ValueError: If arguments are inconsistent, see
            :class:`hrformer_mm.core.ocr.OCR`.
    """
    # Set by BaseDecodeHead.
    out_channels: int
    loss_decode: Any
    num_classes: int
    ignore_index: int
    _stack_batch_gt: Callable[[list], Tensor]
    ignores_padding = True  # read by LabelRangeHook

    def __init__(self,
                 in_channels: Sequence[int],
                 num_classes: int,
                 channels: int = 512,
                 ocr_channels: int = 256,
                 aux_channels: int | None = None,
                 dropout_ratio: float = 0.05,
                 kernel_size: int = 3,
                 groups: int = 1,
                 loss_decode: dict | list[dict] = dict(
                     type='hrformer_mm.OHEMCrossEntropyLoss'),
                 loss_aux: dict | None = dict(
                     type='hrformer_mm.PixelCrossEntropyLoss',
                     loss_weight=0.4),
                 align_corners: bool = True,
                 out_channels: int | None = None,
                 threshold: float | None = None,
                 ignore_index: int = 255,
                 init_cfg: None | dict | list[dict] = None):
        total = check_maps(in_channels)
        BaseDecodeHead.__init__(
            self,
            in_channels=in_channels,
            channels=channels,
            num_classes=num_classes,
            dropout_ratio=dropout_ratio,
            in_index=tuple(range(len(in_channels))),
            input_transform='resize_concat',
            loss_decode=loss_decode,
            out_channels=out_channels,
            threshold=threshold,
            ignore_index=ignore_index,
            align_corners=align_corners,
            init_cfg=init_cfg)
        self.add_layers(
            total, self.out_channels, channels, ocr_channels,
            aux_channels, dropout_ratio, kernel_size, groups)
        self.loss_aux = loss_aux and MMSEG_MODELS.build(loss_aux)

    def forward(
            self, inputs: Sequence[Tensor],
            auxiliary: bool = False) -> Any:
        """Compute logits [B, out_channels, H, W] of stride 4.

        Args:
            inputs: Maps of the backbone, see :class:`OCR`.
            auxiliary: Return the logits of the auxiliary head, too.
        """
        logits, guess = super().forward(inputs)
        return (logits, guess) if auxiliary else logits

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: list,
             train_cfg: Any) -> dict[str, Tensor]:
        """Compute losses and accuracies of the main and auxiliary logits."""
        # This attribute is what compile=True replaces.
        logits, guess = self.forward(inputs, auxiliary=True)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        if self.ignore_index not in (PAD, None) and self.num_classes <= PAD:
            labels = labels.masked_fill(labels == PAD, self.ignore_index)
        losses: Any = self.loss_decode
        if not isinstance(losses, nn.ModuleList):
            losses = [losses]
        named = [(loss.loss_name, loss) for loss in losses]
        result = self.judge(logits, labels, named, 'acc_seg')
        if self.loss_aux is not None:
            named = [('loss_aux', self.loss_aux)]
            result.update(self.judge(guess, labels, named, 'acc_aux'))
        return result

    def judge(self, logits: Tensor, labels: Tensor,
              losses: Sequence[tuple[str, nn.Module]],
              accuracy_name: str) -> dict[str, Tensor]:
        """Compute losses by name, and the percentage of correct pixels.

        The computation is in float32 at the size of the labels [B, H, W].
        """
        logits = self.enlarge(logits.float(), labels.shape[-2:])
        result: dict[str, Tensor] = {}
        for name, loss in losses:
            value = loss(logits, labels, ignore_index=self.ignore_index)
            result[name] = result[name] + value if name in result else value
        result[accuracy_name] = pixel_accuracy(logits.detach(), labels,
                                               self.ignore_index)
        return result

    def predict_by_feat(self, seg_logits: Tensor,
                        batch_img_metas: Sequence[dict]) -> Tensor:
        """Resize logits to the input size of the model.

        MMSegmentation's version warns about each new size with aligned
        corners.
        """
        meta = batch_img_metas[0]
        size = meta['img_shape']
        if not isinstance(size, torch.Size):  # torch.Size: sliding window
            size = meta.get('pad_shape', size)[:2]
        return self.enlarge(seg_logits, size)

    def enlarge(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(
            logits,
            tuple(size),
            mode='bilinear',
            align_corners=self.align_corners)
