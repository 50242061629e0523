# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Object-contextual representations (OCR), in plain PyTorch.

Yuan et al., Object-Contextual Representations for Semantic Segmentation, ECCV
2020, https://arxiv.org/abs/1909.11065, as in HRFormer's segmentation code.

An auxiliary head predicts a coarse segmentation. Its soft object regions
aggregate one object-region representation per class, and every pixel attends
to these representations. Letters: K classes, C channels of a pixel, H x W the
size of the finest map, of stride 4.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arch import are_counts, check, check_arguments
from .kernels import attention


class ConvBNReLU(nn.Module):
    """Convolution, batch norm and ReLU, [B, C_in, H, W] to [B, C_out, H, W].

    The convolution has a bias before the norm, as in the official code.
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
    """Upsample all maps to the size of the first and concatenate them."""
    size = xs[0].shape[-2:]
    coarse = (
        F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
        for x in xs[1:])
    return torch.cat([xs[0], *coarse], dim=1)


def check_maps(in_channels: Sequence[int]) -> int:
    """Return the total number of channels of all maps."""
    check('in_channels', in_channels, are_counts(in_channels),
          'positive integers, one for each map')
    return sum(in_channels)


def gather_objects(pixels: Tensor, logits: Tensor) -> Tensor:
    """Aggregate pixels [B, C, H, W] into object representations [B, K, C].

    The soft object region of a class is the softmax of its logits
    [B, K, H, W] over the map. If one logit stands for two classes, the logit
    of the other class is its negative, so there are at least two regions.
    """
    if logits.shape[1] == 1:
        logits = torch.cat([-logits, logits], dim=1)
    weights = logits.flatten(2).softmax(dim=2)  # [B, K, H*W]
    return weights @ pixels.flatten(2).transpose(1, 2)


class ObjectContext(nn.Module):
    """Attention from pixels to object-region representations.

    Maps pixels [B, C, H, W] and logits [B, K, H, W] of a coarse segmentation
    to pixels augmented by their object context, [B, C, H, W].

    Args:
        channels: Number of channels C.
        ocr_channels: Number of channels of queries, keys and values.
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
        # An axis for one head, which fused kernels and ONNX require.
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
    """Segmentation head of HRFormer: maps to logits of stride 4.

    Maps of shape [B, in_channels[i], H / 2**i, W / 2**i], sizes rounded up,
    become the logits and those of the auxiliary head, each [B, K, H, W].

    Args:
        in_channels: Number of channels of each map, finest first.
        num_classes: Number of classes K.
        channels: Number of channels of the pixel and object representations.
        ocr_channels: Number of channels of queries, keys and values.
        aux_channels: Number of channels inside the auxiliary head, by default
            ``channels``. In HRNet it is the sum of ``in_channels``.
        dropout_ratio: Dropout rate of channels before the last convolution.
        kernel_size: Kernel size of the two large convolutions: 3 in the
            official v2, 7 in v3, with as many groups as divide the channels.
        groups: Number of groups of the two large convolutions.
        align_corners: Whether to align corners when resizing maps.

    Raises:
        ValueError: If the groups do not divide the channels, the kernel size
            is even, or a value is invalid.

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
                 aux_channels: int | None = None,
                 dropout_ratio: float = 0.05,
                 kernel_size: int = 3,
                 groups: int = 1,
                 align_corners: bool = True):
        super().__init__()
        self.align_corners, = check_arguments(align_corners=align_corners)
        self.add_layers(
            check_maps(in_channels), num_classes, channels, ocr_channels,
            aux_channels, dropout_ratio, kernel_size, groups)

    def add_layers(self, c_in: int, num_classes: int, channels: int,
                   ocr_channels: int, aux_channels: int | None,
                   dropout_ratio: float, kernel_size: int, groups: int):
        """Build the layers; subclasses with another parent call this."""
        aux = channels if aux_channels is None else aux_channels
        check_arguments(
            num_classes=num_classes, channels=channels,
            ocr_channels=ocr_channels, aux_channels=aux,
            kernel_size=kernel_size, groups=groups,
            dropout_ratio=dropout_ratio)
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

    def forward(self, xs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        x = join_maps(xs, self.align_corners)
        aux = self.aux(x)
        pixels = self.ocr(self.bottleneck(x), aux)
        return self.conv_seg(self.dropout(pixels)), aux
