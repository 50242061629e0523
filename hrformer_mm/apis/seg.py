# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Semantic segmentation: labels of all pixels, written as PNGs."""
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy import ndarray

from ..visualization.drawing import as_bgr8, draw_regions, make_palette
from .inputs import Frame
from .predictor import Predictor


class SegPredictor(Predictor):
    """Semantic segmentation."""
    has_labels = True
    default_batch = 1  # Cityscapes logits at full size take 160 MB

    def __init__(self, cfg: Config, *args: Any, **kwargs: Any):
        super().__init__(cfg, *args, **kwargs)
        count = self.model.decode_head.out_channels
        self.names = list(self.meta.get('classes') or
                          (f'class {i}' for i in range(max(count, 2))))
        self.palette = self.meta.get('palette') or make_palette(
            len(self.names))

    def keep(self, result: Any) -> ndarray:
        """Return the labels [H, W] only, since the logits are large."""
        labels = result.pred_sem_seg.data[0].cpu().numpy()
        return labels.astype(np.uint8 if len(self.names) < 256 else np.uint16)

    def gather(self, frame: Frame, results: list[ndarray]) -> ndarray:
        return results[0]

    def draw(self, frame: Frame, found: ndarray) -> ndarray:
        return draw_regions(as_bgr8(frame.image), found, self.palette,
                            self.names)

    def pictures(self, frame: Frame, found: ndarray) -> dict[str, ndarray]:
        name = frame.source.name
        if frame.source.is_clip:
            name = f'{name}/{frame.index:06d}'
        return {f'labels/{name}': found}

    def record(self, frame: Frame, found: ndarray) -> dict:
        labels, counts = np.unique(found, return_counts=True)
        shares = {self.names[label]: round(count / found.size, 5)
                  for label, count in zip(labels, counts.tolist())}
        picture, = self.pictures(frame, found)
        height, width = found.shape
        return dict(file_name=frame.label, height=height, width=width,
                    labels=f'{picture}.png', shares=shares)

    def documents(self, records: list[dict]) -> dict[str, Any]:
        """Return the classes behind the labels, and their share per image."""
        classes = [dict(label=i, name=name, color=list(map(int, color)))
                   for i, (name, color) in enumerate(
                       zip(self.names, self.palette))]  # yapf: disable
        return {'predictions.json': dict(classes=classes, images=records)}
