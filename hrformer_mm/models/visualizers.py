# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""MMPose's visualizer under a name of this package."""
from mmpose.visualization import PoseLocalVisualizer

from ..registry import VISUALIZERS


@VISUALIZERS.register_module()
class PoseVisualizer(PoseLocalVisualizer):
    """MMPose's visualizer, fixed by :mod:`hrformer_mm.compat`.

    Kept for configs and checkpoints of version 0.1, which name this class.
    """
