# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""MMPose's visualizer, where its own fails."""
from typing import Any

import numpy as np
from mmpose.visualization import PoseLocalVisualizer
from numpy import ndarray

from ..registry import VISUALIZERS


@VISUALIZERS.register_module()
class PoseVisualizer(PoseLocalVisualizer):
    """MMPose's own, which draws key points with numpy >= 2.4, too.

    MMPose <= 1.3.2 gives OpenCV the radius as an array of one number, which
    numpy does not take for a number any more.
    """

    def draw_circles(self, center: ndarray, radius: Any, **kwargs: Any):
        if self.backend == 'opencv':
            radius = float(np.ravel(radius)[0])
        super().draw_circles(center, radius, **kwargs)
