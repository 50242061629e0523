# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Keypoint metrics that MMPose supports for one dataset only."""
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmpose.evaluation.functional import keypoint_pck_accuracy
from mmpose.evaluation.metrics import PCKAccuracy

from ..registry import METRICS


@METRICS.register_module()
class TorsoPCK(PCKAccuracy):
    """Percentage of correct keypoints, relative to torso and box.

    MMPose's ``PCKAccuracy(norm_item='torso')`` knows the keypoints of JHMDB
    only. Two values are reported: ``PCK``, relative to the longer side of the
    box, and ``tPCK``, relative to the torso.

    Args:
        torso: Indices of the two keypoints whose distance is the length of
            the torso, such as right shoulder and left hip.
        thr: Threshold, as a fraction of that length.
        **kwargs: See MMPose's ``PCKAccuracy``.
    """

    def __init__(self,
                 torso: tuple[int, int],
                 thr: float = 0.2,
                 **kwargs: Any):
        super().__init__(thr=thr, norm_item='bbox', **kwargs)
        self.torso = torso

    def process(self, data_batch: Sequence[dict],
                data_samples: Sequence[dict]):
        """Add the length of the torso to MMPose's results of each sample."""
        first = len(self.results)
        super().process(data_batch, data_samples)
        a, b = self.torso
        for result in self.results[first:]:
            points = result['gt_coords'][0]
            length = np.linalg.norm(points[a] - points[b])
            has_torso = result['mask'][0, [a, b]].all() and length > 0
            result['torso_size'] = np.full((1, 2), max(length, 1e-6))
            result['torso_mask'] = result['mask'] & has_torso

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute ``PCK`` and ``tPCK``, as fractions of 1."""
        metrics = super().compute_metrics(results)
        _, accuracy, _ = keypoint_pck_accuracy(
            np.concatenate([r['pred_coords'] for r in results]),
            np.concatenate([r['gt_coords'] for r in results]),
            np.concatenate([r['torso_mask'] for r in results]), self.thr,
            np.concatenate([r['torso_size'] for r in results]))
        return dict(metrics, tPCK=accuracy)
