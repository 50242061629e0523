# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Representation head of the classification network, in plain PyTorch.

It fuses the maps of all branches into one with 2048 channels for pooling and
classification. Parameter names are those of the official code.
"""
from collections.abc import Sequence

from torch import Tensor, nn

from .arch import are_counts, check, check_arguments
from .blocks import Residual

WIDTHS = (128, 256, 512, 1024)  # channels of the widened branches
OUT_CHANNELS = 2048


def widen(c_in: int, c_out: int, dw_conv: bool) -> nn.Sequential:
    """Build a ResNet bottleneck that widens a branch to ``c_out`` channels."""
    inner = c_out // 4
    return nn.Sequential(
        Residual((c_in, inner, inner, c_out), (1, 3, 1), depthwise=dw_conv))


def downsample_map(c_in: int, c_out: int, dw_conv: bool) -> nn.Sequential:
    """Build a downsampling layer of stride 2 to the next branch.

    Its convolutions have biases before batch norms, as in the official code.
    """
    layers: list[nn.Module] = []
    if dw_conv:
        layers += [
            nn.Conv2d(c_in, c_in, 3, stride=2, padding=1, groups=c_in),
            nn.BatchNorm2d(c_in),
            nn.Conv2d(c_in, c_out, 1)
        ]
    else:
        layers += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.BatchNorm2d(c_out),
                         nn.ReLU(inplace=True))


class RepresentationHead(nn.Module):
    """Fuse four maps into one at the coarsest resolution.

    Maps of shape [B, in_channels[i], H / 2**i, W / 2**i], sizes rounded up,
    become [B, 2048, H / 8, W / 8].

    Args:
        in_channels: Channels of the four maps, finest first.
        dw_conv: Make 3x3 convolutions depth-wise; HRNet's are dense.

    Raises:
        ValueError: If there are not four maps, or a value is invalid.

    Example:
        >>> import torch
        >>> maps = [torch.rand(2, c, 64 // c, 64 // c)
        ...         for c in (8, 16, 32, 64)]
        >>> RepresentationHead((8, 16, 32, 64))(maps).shape
        torch.Size([2, 2048, 1, 1])
    """

    def __init__(self, in_channels: Sequence[int], dw_conv: bool = True):
        super().__init__()
        check('in_channels', in_channels, are_counts(in_channels, len(WIDTHS)),
              f'one number for each of {len(WIDTHS)} branches')
        check_arguments(dw_conv=dw_conv)
        self.in_channels = tuple(in_channels)
        self.incre_modules = nn.ModuleList(
            widen(c, width, dw_conv) for c, width in zip(in_channels, WIDTHS))
        self.downsamp_modules = nn.ModuleList(
            downsample_map(fine, coarse, dw_conv)
            for fine, coarse in zip(WIDTHS, WIDTHS[1:]))
        self.final_layer = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], OUT_CHANNELS, 1),
            nn.BatchNorm2d(OUT_CHANNELS), nn.ReLU(inplace=True))

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        xs = [module(x) for module, x in zip(self.incre_modules, xs)]
        y = xs[0]
        for x, down in zip(xs[1:], self.downsamp_modules):
            y = x + down(y)
        return self.final_layer(y)
