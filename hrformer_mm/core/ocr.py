# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Object-contextual representations (OCR), in plain PyTorch.

Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV
2020, https://arxiv.org/abs/1909.11065, as HRFormer's segmentation code has it.

A first guess of the labels (the auxiliary branch) gathers one vector for each
class; every pixel then attends to these vectors. Letters: K classes, C
channels of a pixel, H x W the finest map, of stride 4.
"""
from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arch import SWITCH, are_counts, check_choice, check_counts, check_rate


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
    """Enlarge all maps to the first one's size and join their channels."""
    size = xs[0].shape[-2:]
    coarse = (
        F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
        for x in xs[1:])
    return torch.cat([xs[0], *coarse], dim=1)


def check_maps(in_channels: Sequence[int]) -> int:
    """Channels of all maps together.

    Raises:
        ValueError: Unless they are positive integers.
    """
    if not are_counts(in_channels):
        raise ValueError('in_channels must be positive integers, one for each '
                         f'map, got {in_channels!r}')
    return sum(in_channels)


def gather_objects(pixels: Tensor, logits: Tensor) -> Tensor:
    """Average pixels [B, C, H, W] into a vector per class, [B, K, C].

    Each class weighs the pixels by a softmax of its logits [B, K, H, W] over
    the map. Where one logit stands for two classes, the other one's is its
    negative, so there always are two vectors to choose from.
    """
    if logits.shape[1] == 1:
        logits = torch.cat([-logits, logits], dim=1)
    weights = logits.flatten(2).softmax(dim=2)  # [B, K, H*W]
    return weights @ pixels.flatten(2).transpose(1, 2)


class ObjectContext(nn.Module):
    """Let pixels attend to the vectors of the classes.

    Takes pixels [B, C, H, W] and a first guess of their classes as logits
    [B, K, H, W]; gives pixels that know their context, [B, C, H, W].

    Args:
        channels: C.
        ocr_channels: Of queries, keys and values.
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
        context = F.scaled_dot_product_attention(query, key, value)
        context = context[:, 0].mT.unflatten(2, pixels.shape[2:])
        context = self.out_project(context)
        return self.bottleneck(torch.cat([context, pixels], dim=1))


class FirstGuess(nn.Module):
    """Auxiliary branch, [B, C_in, H, W] to logits [B, K, H, W]."""

    def __init__(self, c_in: int, channels: int, num_classes: int,
                 kernel_size: int, groups: int):
        super().__init__()
        self.conv = ConvBNReLU(c_in, channels, kernel_size, groups)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_seg(self.conv(x))


class OCR(nn.Module):
    """The segmentation head of HRFormer: maps to logits of stride 4.

    Takes maps [B, in_channels[i], H / 2**i, W / 2**i], sizes rounded up, and
    gives the logits and those of the auxiliary branch, each [B, K, H, W].

    Args:
        in_channels: Of each map, finest first.
        num_classes: K.
        channels: Inside.
        ocr_channels: Inside the attention.
        aux_channels: Inside the auxiliary branch, by default ``channels``.
            HRNet's is as wide as all maps together.
        dropout_ratio: Of whole channels before the last convolution.
        kernel_size: Of the two large convolutions. The official v2 has 3, v3
            has 7 with as many groups as divide channels in and out.
        groups: Of the same convolutions.
        align_corners: As torch has it, for all resizing of maps.

    Raises:
        ValueError: If the groups do not divide the channels, the kernel is
            even, or a value is not of its kind.

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
        """Make the layers; apart for a class with two parents to call."""
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
        self.aux = FirstGuess(c_in, aux, num_classes, kernel_size, groups)
        self.bottleneck = ConvBNReLU(c_in, channels, kernel_size, groups)
        self.ocr = ObjectContext(channels, ocr_channels)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, xs: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
        x = join_maps(xs, self.align_corners)
        guess = self.aux(x)
        pixels = self.ocr(self.bottleneck(x), guess)
        return self.conv_seg(self.dropout(pixels)), guess
