# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Image classification: class names with scores."""
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy import ndarray

from ..visualization.drawing import as_bgr8, draw_lines
from .inputs import Frame
from .predictor import Predictor

TOP = 5  # classes recorded for each image
SHOWN = 3  # classes drawn on each image


class ClsPredictor(Predictor):
    """Image classification."""

    def __init__(self, cfg: Config, *args: Any, **kwargs: Any):
        super().__init__(cfg, *args, **kwargs)
        self.names = self.meta.get('classes')

    def gather(self, frame: Frame, results: list[Any]) -> ndarray:
        """Return the probabilities of all classes."""
        return results[0].pred_score.cpu().numpy()

    def best(self, scores: ndarray, number: int) -> list[dict]:
        """Return the most likely classes, in descending order."""
        order = np.argsort(-scores, kind='stable')[:number].tolist()
        return [
            dict(label=i,
                 name=str(self.names[i] if self.names else i),
                 score=round(float(scores[i]), 5)) for i in order
        ]

    def draw(self, frame: Frame, found: ndarray) -> ndarray:
        return draw_lines(as_bgr8(frame.image), [
            f"{100 * guess['score']:5.1f} %  {guess['name']}"
            for guess in self.best(found, SHOWN)
        ])

    def record(self, frame: Frame, found: ndarray) -> dict:
        return dict(file_name=frame.label, classes=self.best(found, TOP))

    def documents(self, records: list[dict]) -> dict[str, Any]:
        return {'predictions.json': records}
