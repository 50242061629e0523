# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Object-contextual representations (OCR), in plain PyTorch.

Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV
2020, https://arxiv.org/abs/1909.11065, as HRFormer's segmentation code has it.

An auxiliary head predicts a coarse segmentation, whose soft object regions
gather one object-region representation per class; every pixel then attends to
these representations. Letters: K classes, C channels of a pixel, H x W the
finest map, of stride 4.
"""
from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arch import (SWITCH, are_counts, check, check_choice, check_counts,
                   check_rate)
from .kernels import attention


class ConvBNReLU(nn.Module):
    """Convolution, batch norm and ReLU, [B, C_in, H, W] to [B, C_out, H, W].

    The convolution has a bias although a norm follows, as in the official
    code.
    """

    def __init__(self,
                 c_in: int,
                 c_out: int,
                 kernel: int = 1,
                 groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            c_in, c_out, kernel, padding=kernel // 2, groups=groups)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def join_maps(xs: Sequence[Tensor], align_corners: bool = True) -> Tensor:
    """Upsample all maps to the size of the first, concatenate channels."""
    size = xs[0].shape[-2:]
    coarse = (
        F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
        for x in xs[1:])
    return torch.cat([xs[0], *coarse], dim=1)


def check_maps(in_channels: Sequence[int]) -> int:
    """Return the number of channels of all maps together."""
    check('in_channels', in_channels, are_counts(in_channels),
          'positive integers, one for each map')
    return sum(in_channels)


def gather_objects(pixels: Tensor, logits: Tensor) -> Tensor:
    """Average pixels [B, C, H, W] into object representations [B, K, C].

    The soft object region of a class is the softmax of its logits
    [B, K, H, W] over the map. Where one logit stands for two classes, that of
    the other one is its negative, so there are at least two regions.
    """
    if logits.shape[1] == 1:
        logits = torch.cat([-logits, logits], dim=1)
    weights = logits.flatten(2).softmax(dim=2)  # [B, K, H*W]
    return weights @ pixels.flatten(2).transpose(1, 2)


class ObjectContext(nn.Module):
    """Let pixels attend to the object-region representations.

    Maps pixels [B, C, H, W] and logits [B, K, H, W] of a coarse segmentation
    to pixels augmented by their object context, [B, C, H, W].

    Args:
        channels: C.
        ocr_channels: Channels of queries, keys and values.
    """

    def __init__(self, channels: int, ocr_channels: int):
        super().__init__()

        def project_twice() -> nn.Sequential:
            return nn.Sequential(
                ConvBNReLU(channels, ocr_channels),
                ConvBNReLU(ocr_channels, ocr_channels))

        self.query_project = project_twice()
        self.key_project = project_twice()
        self.value_project = ConvBNReLU(channels, ocr_channels)
        self.out_project = ConvBNReLU(ocr_channels, channels)
        self.bottleneck = ConvBNReLU(2 * channels, channels)

    def forward(self, pixels: Tensor, logits: Tensor) -> Tensor:
        objects = gather_objects(pixels, logits).mT[..., None]  # [B, C, K, 1]
        # One head, as an axis: fused kernels and ONNX ask for it.
        query = self.query_project(pixels).flatten(2).mT[:, None]
        key = self.key_project(objects).flatten(2).mT[:, None]
        value = self.value_project(objects).flatten(2).mT[:, None]
        context = attention(query, key, value)
        context = context[:, 0].mT.unflatten(2, pixels.shape[2:])
        context = self.out_project(context)
        return self.bottleneck(torch.cat([context, pixels], dim=1))


class AuxHead(nn.Module):
    """Auxiliary head, [B, C_in, H, W] to logits [B, K, H, W]."""

    def __init__(self, c_in: int, channels: int, num_classes: int,
                 kernel_size: int, groups: int):
        super().__init__()
        self.conv = ConvBNReLU(c_in, channels, kernel_size, groups)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.conv(x))


class OCR(nn.Module):
    """The segmentation head of HRFormer: maps to logits of stride 4.

    Maps of shape [B, in_channels[i], H / 2**i, W / 2**i], sizes rounded up,
    become the logits and those of the auxiliary head, each [B, K, H, W].

    Args:
        in_channels: Channels of each map, finest first.
        num_classes: K.
        channels: Channels of the pixel and object representations.
        ocr_channels: Channels of queries, keys and values.
        aux_channels: Channels inside the auxiliary head, by default
            ``channels``. HRNet's is as wide as all maps together.
        dropout_ratio: Rate of whole channels before the last convolution.
        kernel_size: Size of the two large convolutions. The official v2 has
            3, v3 has 7 with as many groups as divide channels in and out.
        groups: Groups of the same convolutions.
        align_corners: Whether resizing maps aligns corners.

    Raises:
        ValueError: If the groups do not divide the channels, the kernel is
            even, or a value is invalid.

    Example:
        >>> maps = [torch.rand(2, c, 64 // c, 48 // c) for c in (4, 8, 16)]
        >>> [y.shape[1:] for y in OCR((4, 8, 16), num_classes=5)(maps)]
        [torch.Size([5, 16, 12]), torch.Size([5, 16, 12])]
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
                 align_corners: bool = True):
        super().__init__()
        self.align_corners = check_choice('align_corners', align_corners,
                                          SWITCH)
        self.add_layers(
            check_maps(in_channels), num_classes, channels, ocr_channels,
            aux_channels, dropout_ratio, kernel_size, groups)

    def add_layers(self, c_in: int, num_classes: int, channels: int,
                   ocr_channels: int, aux_channels: Optional[int],
                   dropout_ratio: float, kernel_size: int, groups: int):
        """Make the layers; a class with two parents calls this by itself."""
        aux = channels if aux_channels is None else aux_channels
        check_counts(num_classes=num_classes, channels=channels,
                     ocr_channels=ocr_channels, aux_channels=aux,
                     kernel_size=kernel_size, groups=groups)
        check_rate('dropout_ratio', dropout_ratio)
        if kernel_size % 2 == 0 or any(n % groups
                                       for n in (c_in, channels, aux)):
            raise ValueError(
                'kernel_size must be odd, and groups must divide the channels '
                f'of all maps ({c_in}), channels ({channels}) and '
                f'aux_channels ({aux}); got kernel_size={kernel_size} and '
                f'groups={groups}')
        self.aux = AuxHead(c_in, aux, num_classes, kernel_size, groups)
        self.bottleneck = ConvBNReLU(c_in, channels, kernel_size, groups)
        self.ocr = ObjectContext(channels, ocr_channels)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, xs: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
        x = join_maps(xs, self.align_corners)
        aux = self.aux(x)
        pixels = self.ocr(self.bottleneck(x), aux)
        return self.conv_seg(self.dropout(pixels)), aux
