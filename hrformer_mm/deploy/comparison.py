# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Compare the outputs of exported files with those of PyTorch.

Values must be close. Decisions (the pixel of a maximum, the best class) must
be equal unless they are ties: where a tiny change of the maps changes a
decision of PyTorch as well, either is right.
"""
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from .postprocess import Network

# Outputs that are decisions, and differences that do not count.
DECISIONS = dict(keypoints=0.1, labels=0.)
TIE = 1e-4  # a change of the maps / their largest value that decides nothing
DRAWS = 8  # of changes; a tie is missed with a probability of 2**-8


@dataclass(frozen=True)
class Tolerance:
    """Maximum difference to PyTorch's outputs in float32."""
    values: float  # largest difference / largest value
    decisions: float  # share of keypoints or labels that differ


# On noise, many values are close to the maximum: float16 decides differently.
TOLERANCES = dict(
    fp32=Tolerance(1e-4, 1e-2),
    fp16=Tolerance(2e-2, 0.2),
    bf16=Tolerance(8e-2, 0.4),
    int8=Tolerance(float('inf'), 1.))  # its check is the metric


def noise(shapes: Iterable[tuple[int, ...]]) -> Iterator[ndarray]:
    """Yield a random image of each shape."""
    random = torch.Generator().manual_seed(0)
    for shape in shapes:
        yield torch.randn(shape, generator=random).numpy()


def undecided(network: Network, maps: Tensor,
              image: Tensor) -> dict[str, ndarray]:
    """Return which decisions are ties, by name of the output.

    They change if the maps change by ``TIE``.

    Args:
        network: Network with postprocessing.
        maps: Its maps [B, K, H, W] for the image.
        image: Images [B, 3, h, w].
    """
    first = dict(zip(network.names, network.finish(maps, image)))
    result = {
        name: np.zeros(tuple(y.shape), bool)
        for name, y in first.items() if name in DECISIONS
    }
    if not result:  # maps of detectors are no tensors
        return result
    random = torch.Generator().manual_seed(0)
    amplitude = TIE * maps.abs().max()
    for _ in range(DRAWS):
        change = amplitude * (torch.rand(maps.shape, generator=random) * 2 - 1)
        changed = zip(network.names, network.finish(maps + change, image))
        for name, y in changed:
            if name in result:
                result[name] |= differ(name, y.numpy(), first[name].numpy())
    return result


def differ(name: str, found: ndarray, wanted: ndarray) -> ndarray:
    """Return which decisions differ, in the shape of the arrays."""
    apart = np.abs(found.astype(np.float64) - wanted)
    return ~(apart <= DECISIONS[name])  # also true for NaN


def relative_difference(found: ndarray, wanted: ndarray) -> float:
    """Return the largest difference / the largest value of ``wanted``."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def differences_of(found: Sequence[ndarray], network: Network,
                   image: Tensor) -> dict[str, float]:
    """Return the difference of each output to that of the network.

    For values: the largest difference, relative to the largest value. For
    decisions: the share that differs without being a tie.
    """
    with torch.no_grad():
        maps = network.maps(image)
        wanted = network.finish(maps, image)
        ties = undecided(network, maps, image)
    result = {}
    for name, y, reference in zip(network.names, found, wanted):
        if name in ties:
            apart = differ(name, y, reference.numpy()) & ~ties[name]
            result[name] = float(apart.mean())
        else:
            result[name] = relative_difference(y, reference.numpy())
    return result


def compare(run: Callable[[ndarray], Sequence[ndarray]], network: Network,
            images: Iterable[ndarray],
            tolerance: Tolerance) -> dict[tuple[int, ...], dict[str, float]]:
    """Compare all outputs on images; return differences by shape.

    Args:
        run: Exported file as a function.
        network: Network as built by its framework.
        images: Images [B, 3, h, w].
        tolerance: Maximum differences.

    Raises:
        ValueError: If an output differs more.
    """
    result = {}
    for image in images:
        found = differences_of(run(image), network, torch.from_numpy(image))
        result[image.shape] = found
        for name, value in found.items():
            limit = (
                tolerance.decisions
                if name in DECISIONS else tolerance.values)
            if not value <= limit:  # also true for NaN
                raise ValueError(
                    f'nothing was written: {name} of images '
                    f'{list(image.shape)} differ from PyTorch by {value:.2g}, '
                    f'at most {limit:.2g} is allowed')
    return result
