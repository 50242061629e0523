# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Keypoints of people and other objects, in COCO's results format."""
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from numpy import ndarray

from ..visualization.drawing import as_bgr8, draw_box, draw_skeleton
from .box_files import image_ids
from .boxes import FrameBoxes, make_boxes
from .categories import Categories, from_annotations, id_key
from .detector import choose_boxes
from .inputs import Frame, Log, Source
from .predictor import Predictor
from .tracking import Tracker, pairwise_iou

SEEN = 0.2  # lower scores are ignored, as in MMPose's COCO metric
SAME = 0.9  # similarity (OKS, else IoU) from which two are duplicates
# Key of the box category in a data sample.
CATEGORY = 'hrformer_mm_category'


class People(NamedTuple):
    """People of one image."""
    keypoints: ndarray  # [N, K, 2] in pixels
    keypoint_scores: ndarray  # [N, K]
    scores: ndarray  # [N], mean of the keypoints that count x box score
    boxes: FrameBoxes
    ids: ndarray | None = None  # [N], the same through a clip


def person_scores(keypoint_scores: ndarray, box_scores: ndarray) -> ndarray:
    """Multiply the mean score of the keypoints that count by the box score.

    Args:
        keypoint_scores: [N, K]
        box_scores: [N]
    """
    seen = keypoint_scores > SEEN
    total = np.where(seen, keypoint_scores, 0).sum(1)
    return box_scores * total / np.maximum(seen.sum(1), 1)


def iou_nms(corners: ndarray, scores: ndarray, threshold: float) -> list[int]:
    """Return the indices of boxes to keep, without duplicates of better ones.

    Args:
        corners: [N, 4]
        scores: [N]
        threshold: Maximum intersection over union of boxes that are kept.
    """
    kept: list[int] = []
    overlaps = pairwise_iou(corners, corners)
    for i in np.argsort(-scores, kind='stable').tolist():
        if not (overlaps[i, kept] > threshold).any():
            kept.append(i)
    return kept


class PosePredictor(Predictor):
    """Top-down pose estimation.

    Args:
        boxes: ``auto``, ``whole``, ``detector``, a file or its content; see
            :func:`.detector.choose_boxes`.
        box_threshold: Minimum score of a box.
        keypoint_threshold: Minimum score of a keypoint that is drawn.
        box_categories: Names or ids of the categories whose boxes count; see
            :meth:`.categories.Categories.select` for the default.
        detector: Name of a detector of torchvision, or config and weights of
            one of MMDetection, for ``auto`` and ``detector``.
        smooth: Smooth keypoints over the frames of a clip.
    """
    unit = 'people'
    files = ('predictions.json', 'images.json')

    def __init__(self,
                 cfg: Config,
                 *args: Any,
                 boxes: Any = 'auto',
                 box_threshold: float = 0.5,
                 keypoint_threshold: float = 0.3,
                 box_categories: Sequence[Any] = (),
                 detector: str | Sequence[str] | None = None,
                 smooth: bool = False,
                 **kwargs: Any):
        super().__init__(cfg, *args, **kwargs)
        if 'num_keypoints' not in self.meta:
            raise ValueError(f'{cfg.filename} does not describe its keypoints:'
                             ' its test dataset has no metainfo')
        own = self.meta.get('CLASSES') or from_annotations(cfg)
        self.categories = Categories(own, self.meta, box_categories)
        self.boxes = choose_boxes(boxes, self.device, box_threshold,
                                  self.categories, detector)
        if self.boxes.problem:
            self.problems = (self.boxes.problem, )
        self.notes += (f'boxes: {self.boxes.words}', )
        self.keypoint_threshold = keypoint_threshold
        self.tracker = Tracker(smooth)

    def expect(self, sources: Iterable[Source], warn: Log):
        super().expect(sources, warn)
        self.boxes.warn = warn
        self.boxes.expect(sources)

    def complaints(self) -> list[str]:
        return self.boxes.complaints()

    def report(self) -> list[str]:
        return [*self.boxes.report(), *self.categories.report()]

    def samples(self, frame: Frame) -> list[dict]:
        found = []
        for corners, score, category in zip(*self.boxes(frame)):
            sample = self.pack(frame, **self.meta, bbox=corners[None],
                               bbox_score=score[None])
            sample['data_samples'].set_metainfo({CATEGORY: category})
            found.append(sample)
        return found

    def gather(self, frame: Frame, results: list[Any]) -> People:
        count = self.meta['num_keypoints']
        if not results:
            return People(np.zeros((0, count, 2)), np.zeros((0, count)),
                          np.zeros(0), make_boxes([], 0))
        found = [result.pred_instances for result in results]
        categories = np.empty(len(results), object)
        categories[:] = [result.get(CATEGORY) for result in results]
        boxes = FrameBoxes(np.concatenate([x.bboxes for x in found]),
                           np.concatenate([x.bbox_scores for x in found]),
                           categories)
        points = np.concatenate([x.keypoints for x in found])
        scores = np.concatenate([x.keypoint_scores for x in found])
        people = People(points, scores, person_scores(scores, boxes.scores),
                        boxes)
        areas = [np.prod(r.gt_instances.bbox_scales) for r in results]
        keep = self.distinct(people, areas)
        points, boxes = points[keep], FrameBoxes(*(x[keep] for x in boxes))
        ids = None
        if frame.source.is_clip:
            ids, points = self.tracker(frame, boxes.corners, points)
        return People(points, scores[keep], people.scores[keep], boxes, ids)

    def distinct(self, people: People, areas: list[float]) -> list[int]:
        """Drop duplicates of an object, as MMPose's COCO metric does.

        Without sigmas in the metainfo, IoU of boxes replaces OKS.
        """
        if len(self.meta.get('sigmas', ())) != people.keypoints.shape[1]:
            return sorted(iou_nms(people.boxes.corners, people.scores, SAME))
        from mmpose.evaluation.functional import oks_nms
        triples = np.dstack([people.keypoints, people.keypoint_scores])
        return sorted(oks_nms(
            [dict(keypoints=k, score=s, area=a)
             for k, s, a in zip(triples, people.scores, areas)],
            SAME, self.meta['sigmas']))  # yapf: disable

    def draw(self, frame: Frame, found: People) -> ndarray:
        image = as_bgr8(frame.image)
        line_colors, point_colors = (
            np.asarray(self.meta[f'{what}_colors']).reshape(-1, 3)
            [:, ::-1].tolist() for what in ('skeleton_link', 'keypoint'))
        numbers = [''] * len(found.scores) if found.ids is None else [
            str(number) for number in found.ids]
        for points, scores, box, number in zip(
                found.keypoints, found.keypoint_scores, found.boxes.corners,
                numbers):
            if self.boxes.is_drawn:
                draw_box(image, box, number)
            draw_skeleton(image, points, scores >= self.keypoint_threshold,
                          self.meta['skeleton_links'], line_colors,
                          point_colors, box[3] - box[1])
        return image

    def record(self, frame: Frame, found: People) -> dict:
        height, width = frame.image.shape[:2]
        triples = np.dstack([found.keypoints, found.keypoint_scores])
        corners = found.boxes.corners
        sizes = corners[:, 2:] - corners[:, :2]
        numbers = [{}] * len(triples) if found.ids is None else [
            dict(track_id=number) for number in found.ids.tolist()]
        people = [
            dict(category_id=id_key(self.categories.written(category)),
                 keypoints=points.flatten().round(4).tolist(),
                 score=round(float(score), 5),
                 bbox=np.hstack([corner[:2], size]).round(2).tolist(),
                 **number)
            for points, score, corner, size, category, number in zip(
                triples, found.scores, corners, sizes,
                found.boxes.categories, numbers)
        ]  # yapf: disable
        return dict(file_name=frame.label, height=height, width=width,
                    id=self.boxes.image_id(frame), people=people)

    def documents(self, records: list[dict]) -> dict[str, Any]:
        """Return COCO results, and the images they belong to.

        Evaluators load the former with ``COCO('images.json').loadRes(...)``.
        """
        ids = image_ids([record['file_name'] for record in records],
                        [record['id'] for record in records])
        images, people = [], []
        for number, record in zip(ids, records):
            image = {k: v for k, v in record.items() if k != 'people'}
            images.append(dict(image, id=number))
            people += [dict(p, image_id=number) for p in record['people']]
        return {
            'predictions.json': people,
            'images.json': dict(images=images, annotations=[],
                                categories=self.described(people)),
        }  # yapf: disable

    def described(self, people: Iterable[dict]) -> list[dict]:
        """Return the categories of results with their keypoints."""
        names = [self.meta['keypoint_id2name'][i]
                 for i in range(self.meta['num_keypoints'])]
        links = [[a + 1, b + 1] for a, b in self.meta['skeleton_links']]
        used = list(dict.fromkeys(p['category_id'] for p in people))
        return [dict(category, keypoints=names, skeleton=links)
                for category in self.categories.describe(used)]
