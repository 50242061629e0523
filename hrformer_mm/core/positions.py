# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Sinusoidal position encoding of TransPose, TokenPose and PRTR."""
import math

import torch
from torch import Tensor


def sine_position(hw: tuple[int, int], dim: int,
                  device: torch.device) -> Tensor:
    """Compute the sinusoidal positions of a map, [1, H*W, dim], as in DETR.

    The first half of the channels encodes the row, the second the column, both
    scaled to one period over the map.
    """
    half = torch.arange(dim // 2, device=device)
    frequency = 10000**(-2 * (half // 2) / (dim // 2))
    axes = []
    for n in hw:
        at = torch.arange(1, n + 1, device=device) / n * 2 * math.pi
        angle = at[:, None] * frequency  # [n, dim/2]
        axes.append(torch.where(half % 2 == 0, angle.sin(), angle.cos()))
    y, x = axes
    H, W = hw
    both = [y[:, None].expand(H, W, -1), x[None].expand(H, W, -1)]
    return torch.cat(both, -1).reshape(1, H * W, dim)
