# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Keypoint codecs of baselines that MMPose 1.x lacks.

MMPose's registry of codecs has no scopes, so configs need the full path:
``type='hrformer_mm.models.codecs.UnbiasedUDPHeatmap'``.
"""

import numpy as np
from mmpose.codecs import MSRAHeatmap, RegressionLabel
from mmpose.registry import KEYPOINT_CODECS


@KEYPOINT_CODECS.register_module()
class UnbiasedUDPHeatmap(MSRAHeatmap):
    """DARK heatmaps in UDP's continuous coordinates (TransPose, TokenPose).

    Gaussians have unquantized centres and cover the whole map; decoding blurs,
    takes the logarithm and refines the maximum by a Taylor expansion. Map and
    image are W - 1 and w - 1 steps wide. MMPose's ``UDPHeatmap`` truncates
    Gaussians and clamps maps at 1e-3 for decoding.

    Args:
        input_size: Width and height of the input image.
        heatmap_size: Width and height of a heatmap.
        sigma: Standard deviation of a Gaussian, in pixels of the map.
        blur_kernel_size: Kernel size of the blur in decoding.
    """

    def __init__(self,
                 input_size,
                 heatmap_size,
                 sigma: float,
                 blur_kernel_size: int = 11):
        super().__init__(
            input_size,
            heatmap_size,
            sigma,
            unbiased=True,
            blur_kernel_size=blur_kernel_size)
        self.scale_factor = ((np.array(input_size) - 1) /
                             (np.array(heatmap_size) - 1)).astype(np.float32)

    def encode(self,
               keypoints: np.ndarray,
               keypoints_visible: np.ndarray | None = None) -> dict:
        """Encode keypoints [1, K, 2] as heatmaps [K, H, W].

        Keypoints more than three sigmas outside the map have weight 0.
        """
        if keypoints_visible is None:
            keypoints_visible = np.ones(keypoints.shape[:2], np.float32)
        W, H = self.heatmap_size
        centres = keypoints[0] / self.scale_factor  # [K, 2]
        low = np.trunc(centres - 3 * self.sigma)
        high = np.trunc(centres + 3 * self.sigma + 1)
        inside = ((low < (W, H)) & (high >= 0)).all(-1)
        weights = (keypoints_visible * inside).astype(np.float32)
        x = np.arange(W) - centres[:, 0, None]  # [K, W]
        y = np.arange(H) - centres[:, 1, None]  # [K, H]
        distance = x[:, None]**2 + y[:, :, None]**2
        maps = np.exp(-distance / (2 * self.sigma**2))
        maps[weights[0] <= 0.5] = 0
        return dict(
            heatmaps=maps.astype(np.float32), keypoint_weights=weights)

    def decode(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode heatmaps to keypoints [1, K, 2] and their scores [1, K].

        As in ``UDPHeatmap``, coordinates assume an input w steps wide, as the
        pose estimator does when it maps them to the image.
        """
        keypoints, scores = super().decode(encoded)
        size = np.array(self.input_size)
        return keypoints * (size / (size - 1)), scores


@KEYPOINT_CODECS.register_module()
class UncroppedRegressionLabel(RegressionLabel):
    """Coordinates relative to the input, also outside of it (PRTR).

    Visible keypoints outside of the crop keep their weight, and invisible ones
    are at (0, 0); both take part in the matching.
    """

    def encode(self,
               keypoints: np.ndarray,
               keypoints_visible: np.ndarray | None = None) -> dict:
        """Divide keypoints [1, K, 2] by the size of the input."""
        if keypoints_visible is None:
            keypoints_visible = np.ones(keypoints.shape[:2], np.float32)
        weights = (keypoints_visible > 0.5).astype(np.float32)
        labels = keypoints / np.array(self.input_size) * weights[..., None]
        return dict(
            keypoint_labels=labels.astype(np.float32),
            keypoint_weights=weights)
