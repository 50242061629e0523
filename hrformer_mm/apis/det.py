# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Boxes and masks of objects, in COCO's results format."""
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from numpy import ndarray

from ..visualization.drawing import as_bgr8, draw_instances, make_palette
from .box_files import image_ids
from .inputs import Frame
from .predictor import Predictor


class Objects(NamedTuple):
    """Objects of one image, best first."""
    boxes: ndarray  # [N, 4], x1, y1, x2, y2 in pixels
    scores: ndarray  # [N]
    labels: ndarray  # [N]
    masks: list[dict] | None  # run lengths of COCO, None without masks


def category_ids(names: Sequence[str]) -> list[int]:
    """Return COCO's ids if all names are COCO's, otherwise 1, 2, 3, ..."""
    from torchvision.models.detection import FCOS_ResNet50_FPN_Weights
    known = FCOS_ResNet50_FPN_Weights.DEFAULT.meta['categories']
    if set(names) <= {*known}:
        return [known.index(name) for name in names]
    return list(range(1, len(names) + 1))


class DetPredictor(Predictor):
    """Object detection.

    Args:
        box_threshold: Minimum score of an object that is drawn. All objects
            are written.
    """
    files = ('predictions.json', 'images.json')
    default_batch = 1  # images differ in size

    def __init__(self, cfg: Config, *args: Any, box_threshold: float = 0.3,
                 **kwargs: Any):
        super().__init__(cfg, *args, **kwargs)
        self.names = list(self.meta.get('classes') or ())
        if not self.names:
            raise ValueError(f'{cfg.filename} does not name its classes: its '
                             'test dataset has no metainfo.classes')
        self.ids = category_ids(self.names)
        self.box_threshold = box_threshold

    def samples(self, frame: Frame) -> list[dict]:
        return [self.pack(frame, img_id=0)]

    def keep(self, result: Any) -> Objects:
        from pycocotools import mask
        found = result.pred_instances
        boxes, scores, labels = (found[key].cpu().numpy()
                                 for key in ('bboxes', 'scores', 'labels'))
        masks: list[dict] | None = None
        if 'masks' in found:
            masks = [mask.encode(np.asfortranarray(one.astype(np.uint8)))
                     for one in found.masks.cpu().numpy()]  # yapf: disable
        return Objects(boxes, scores, labels, masks)

    def gather(self, frame: Frame, results: list[Objects]) -> Objects:
        return results[0]

    def draw(self, frame: Frame, found: Objects) -> ndarray:
        from pycocotools import mask
        shown = np.flatnonzero(found.scores >= self.box_threshold).tolist()
        masks = [mask.decode(found.masks[i]).astype(bool)
                 for i in shown] if found.masks is not None else []
        texts = [f'{self.names[found.labels[i]]} {found.scores[i]:.2f}'
                 for i in shown]  # yapf: disable
        return draw_instances(
            as_bgr8(frame.image), found.boxes[shown], masks,
            make_palette(len(shown)), texts)

    def record(self, frame: Frame, found: Objects) -> dict:
        height, width = frame.image.shape[:2]
        sizes = found.boxes[:, 2:] - found.boxes[:, :2]
        objects: list[dict[str, Any]] = [
            dict(category_id=self.ids[label],
                 bbox=np.hstack([box[:2], size]).round(2).tolist(),
                 score=round(float(score), 5))
            for box, size, score, label in zip(
                found.boxes, sizes, found.scores, found.labels)
        ]  # yapf: disable
        for one, mask in zip(objects, found.masks or ()):
            one['segmentation'] = dict(
                mask, counts=mask['counts'].decode('ascii'))
        return dict(file_name=frame.label, height=height, width=width,
                    objects=objects)

    def documents(self, records: list[dict]) -> dict[str, Any]:
        """Return COCO results, and the images they belong to.

        Evaluators load the former with ``COCO('images.json').loadRes(...)``.
        """
        ids = image_ids([record['file_name'] for record in records],
                        [None] * len(records))
        images, objects = [], []
        for number, record in zip(ids, records):
            images.append(dict(
                {k: v for k, v in record.items() if k != 'objects'},
                id=number))  # yapf: disable
            objects += [dict(o, image_id=number) for o in record['objects']]
        categories = [dict(id=i, name=name)
                      for i, name in zip(self.ids, self.names)]
        return {
            'predictions.json': objects,
            'images.json': dict(images=images, annotations=[],
                                categories=categories),
        }  # yapf: disable
