# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Transforms of the official segmentation code that MMSegmentation lacks."""
from collections.abc import Sequence
from math import sqrt

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmseg.datasets.transforms import Resize

from ...registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomScaleAspect(Resize):
    """Resize by a random factor and to a random aspect ratio.

    Images are resized with bicubic, labels with nearest interpolation. The
    area changes by the square of the factor, for any aspect ratio.

    Args:
        scale: Range of the factor.
        aspect: Range of the factor of the aspect ratio (width / height).
    """

    def __init__(self,
                 scale: Sequence[float] = (0.5, 2.),
                 aspect: Sequence[float] = (0.9, 1.1)):
        super().__init__(scale=1, interpolation='bicubic')
        self.scale_range, self.aspect_range = tuple(scale), tuple(aspect)

    @cache_randomness
    def draw(self) -> tuple[float, float]:
        """Sample the factors of width and height."""
        (low, high), (narrow, wide) = self.scale_range, self.aspect_range
        scale = np.random.uniform(low, high)
        stretch = sqrt(np.random.uniform(narrow, wide))
        return scale * stretch, scale / stretch

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        x, y = self.draw()
        results['scale'] = (max(int(width * x), 1), max(int(height * y), 1))
        self._resize_img(results)
        self._resize_seg(results)
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(scale={self.scale_range}, '
                f'aspect={self.aspect_range})')


@TRANSFORMS.register_module()
class RandomBrightness(BaseTransform):
    """Add one random integer to all values of an 8-bit image.

    Args:
        shift: Maximum absolute value of the integer.
    """

    def __init__(self, shift: int = 10):
        self.shift = shift

    @cache_randomness
    def draw(self) -> int:
        return np.random.randint(-self.shift, self.shift + 1)

    def transform(self, results: dict) -> dict:
        image = results['img'].astype(np.int16) + self.draw()
        results['img'] = image.clip(0, 255).astype(np.uint8)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(shift={self.shift})'


@TRANSFORMS.register_module()
class ScaleAligned(BaseTransform):
    """Resize the image bilinearly with aligned corners, for testing.

    This matches the official multi-scale test; OpenCV does not align corners.
    The image is converted to float32 and not rounded.

    Args:
        scale: Factor of height and width; the new size is rounded down.
    """

    def __init__(self, scale: float):
        self.scale = scale

    def transform(self, results: dict) -> dict:
        image = torch.from_numpy(results['img'].astype(np.float32))
        height, width = image.shape[:2]
        size = int(height * self.scale), int(width * self.scale)
        if size != (height, width):
            image = F.interpolate(
                image.permute(2, 0, 1)[None],
                size,
                mode='bilinear',
                align_corners=True)[0].permute(1, 2, 0)
        results['img'] = image.numpy()
        results['img_shape'] = size
        results['scale_factor'] = (size[1] / width, size[0] / height)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale})'
