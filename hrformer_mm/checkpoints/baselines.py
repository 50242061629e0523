# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Reshape the tensors of baselines that our models store differently.

All names are those of our layout; :mod:`.keymap` has the others.
"""
from collections import OrderedDict
from collections.abc import Callable
from math import isqrt, log

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.positions import sine_position

StateDict = dict[str, Tensor]
PATCHES, DRAW = 'neck.patches.weight', 'neck.draw.1.weight'
QUERIES = 'head.queries'
AUX = 'decode_head.aux.conv.conv.weight'
# Height and width of TransPose's only input size, at stride 4.
TRANSPOSE_GRID = (64, 48)


def factors(count: int, ratio: float = 4 / 3) -> tuple[int, int]:
    """Factor a number into height x width, closest to the given ratio."""
    pairs = [(n, count // n) for n in range(1, count + 1) if count % n == 0]
    return min(pairs, key=lambda hw: abs(log(hw[0] / hw[1] / ratio)))


def tokenpose_to_ours(tensors: StateDict) -> StateDict:
    """Convert the linear patch embedding to a convolution.

    Patches are flattened as height, width, channels. Their height and width
    follow from the shape of a crop, which is 4:3.
    """
    weight = tensors[PATCHES]
    channels = len(tensors['backbone.stage3.0.branches.0.0.conv1.weight'])
    if weight.ndim != 2 or weight.shape[1] % channels:
        raise ValueError(f'{PATCHES} of shape {tuple(weight.shape)} embeds no '
                         f'patches of {channels} channels')
    hw = factors(weight.shape[1] // channels)
    weight = weight.unflatten(1, (*hw, channels)).permute(0, 3, 1, 2)
    return {**tensors, PATCHES: weight.contiguous()}


def tokenpose_from_ours(tensors: StateDict) -> StateDict:
    weight = tensors[PATCHES].permute(0, 2, 3, 1).flatten(1)
    return {**tensors, PATCHES: weight.contiguous()}


def prtr_to_ours(tensors: StateDict) -> StateDict:
    return {**tensors, QUERIES: tensors[QUERIES][None]}


def prtr_from_ours(tensors: StateDict) -> StateDict:
    return {**tensors, QUERIES: tensors[QUERIES][0]}


def convolutions(tensors: StateDict) -> list[str]:
    """Return the names, without ``weight``, of convolutions with a norm."""
    end = '.conv.weight'
    return [k[:-len('weight')] for k in tensors
            if k.startswith('decode_head.') and k.endswith(end)]


def hrnet_ocr_to_ours(tensors: StateDict) -> StateDict:
    """Add zero biases to convolutions, and pad the auxiliary kernel.

    It is 1x1, ours 3x3; padded with zeros both have the same outputs.
    """
    out = OrderedDict(tensors)
    for name in convolutions(tensors):
        weight = tensors[name + 'weight']
        out.setdefault(name + 'bias', weight.new_zeros(len(weight)))
    border = (tensors['decode_head.bottleneck.conv.weight'].shape[-1] -
              tensors[AUX].shape[-1]) // 2
    out[AUX] = F.pad(tensors[AUX], (border, ) * 4)
    return out


def hrnet_ocr_from_ours(tensors: StateDict) -> StateDict:
    """Fold biases into the means of norms, and crop the auxiliary kernel.

    Raises:
        ValueError: If the border of the auxiliary kernel is not zero.
    """
    out = OrderedDict(tensors)
    for name in convolutions(tensors):
        bias, norm = out[name + 'bias'], name[:-len('conv.')] + 'bn.'
        mean = out[norm + 'running_mean']
        out[norm + 'running_mean'] = mean - bias.to(mean.dtype)
        out[name + 'bias'] = torch.zeros_like(bias)
        if name.startswith('decode_head.ocr.'):  # where they have none
            del out[name + 'bias']
    weight = tensors[AUX]
    middle = weight.shape[-1] // 2
    centre = weight[..., middle:middle + 1, middle:middle + 1]
    if weight.count_nonzero() != centre.count_nonzero():
        size = 'x'.join(map(str, weight.shape[-2:]))
        raise ValueError(
            f'the auxiliary convolution is {size}, that of hrnet-ocr 1x1: its '
            "outputs would differ; --to official-seg has the same network")
    out[AUX] = centre.contiguous()
    return out


def positions(grid: tuple[int, int], dim: int) -> Tensor:
    return sine_position(grid, dim, torch.device('cpu'))


def transpose_positions(tensors: StateDict) -> StateDict:
    """Compute the stored positions [H*W, 1, C] for images of 256x192."""
    dim = len(tensors['neck.reduce.weight'])
    return dict(pos_embedding=positions(TRANSPOSE_GRID, dim).transpose(0, 1))


def tokenpose_positions(tensors: StateDict) -> StateDict:
    """Compute the positions [1, patches, C] for the weights' heatmap size."""
    dim, _, *patch = tensors[PATCHES].shape
    pixels = len(tensors[DRAW])
    side = isqrt(pixels)
    size = (side, side) if side * side == pixels else factors(pixels)
    grid = (size[0] // patch[0], size[1] // patch[1])
    return {'transformer.pos_embedding': positions(grid, dim)}


Adapt = Callable[[StateDict], StateDict]
TO_OURS: dict[str, Adapt] = {
    'tokenpose': tokenpose_to_ours,
    'prtr': prtr_to_ours,
    'hrnet-ocr': hrnet_ocr_to_ours,
}
FROM_OURS: dict[str, Adapt] = {
    'tokenpose': tokenpose_from_ours,
    'prtr': prtr_from_ours,
    'hrnet-ocr': hrnet_ocr_from_ours,
}
# Tensors under the names of the layout, which our models compute.
DERIVED: dict[str, Adapt] = {
    'transpose': transpose_positions,
    'tokenpose': tokenpose_positions,
}
