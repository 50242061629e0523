# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Augmentation of the released pose recipe that MMPose 1.x lacks."""
import numpy as np
from mmcv.transforms import BaseTransform

from ...registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomScaleRotation(BaseTransform):
    """Randomly scale and rotate the crop around each person.

    Every sample is resized by N(1, scale_factor), clipped to
    [1 - scale_factor, 1 + scale_factor]; some are rotated by
    N(0, rotate_factor), clipped to twice that. This is the distribution of
    MMPose 0.x, for which the released recipe was written; MMPose 1.x uses
    narrower truncated normals and also shifts boxes
    (``RandomBBoxTransform``).

    Changes ``bbox_scale`` [N, 2]; adds ``bbox_rotation`` [N] in degrees.

    Args:
        scale_factor: Standard deviation and maximum change of the size.
        rotate_factor: Standard deviation and half of the maximum rotation,
            in degrees.
        rotate_prob: Probability that a sample is rotated.
    """

    def __init__(self,
                 scale_factor: float = 0.5,
                 rotate_factor: float = 40.,
                 rotate_prob: float = 0.6):
        self.scale_factor = scale_factor
        self.rotate_factor = rotate_factor
        self.rotate_prob = rotate_prob

    def transform(self, results: dict) -> dict:
        num = len(results['bbox_scale'])
        sizes = 1 + self.scale_factor * np.random.randn(num, 1).clip(-1, 1)
        angles = self.rotate_factor * np.random.randn(num).clip(-2, 2)
        angles *= np.random.rand(num) < self.rotate_prob
        results['bbox_scale'] = results['bbox_scale'] * sizes.astype('f4')
        results['bbox_rotation'] = angles.astype('f4')
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(scale_factor={self.scale_factor}, '
                f'rotate_factor={self.rotate_factor}, '
                f'rotate_prob={self.rotate_prob})')
