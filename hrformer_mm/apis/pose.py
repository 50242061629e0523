# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Key points of people, written as COCO's results."""
from itertools import count
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple

import numpy as np
from mmengine.config import Config
from numpy import ndarray

from .boxes import Boxes, choose_boxes
from .drawing import as_bgr8, draw_box, draw_skeleton
from .inputs import Frame
from .predictor import Predictor

SEEN = 0.2  # scores below do not count, as MMPose evaluates COCO
SAME = 0.9  # from this similarity (OKS) two people are one, likewise


class People(NamedTuple):
    """People of one image."""
    keypoints: ndarray  # [N, K, 2] in pixels
    keypoint_scores: ndarray  # [N, K]
    scores: ndarray  # [N], of the key points that count, times the box's
    boxes: Boxes


def person_scores(keypoint_scores: ndarray, box_scores: ndarray) -> ndarray:
    """Means over the key points that count, times those of the boxes.

    Args:
        keypoint_scores: [N, K]
        box_scores: [N]
    """
    seen = keypoint_scores > SEEN
    total = np.where(seen, keypoint_scores, 0).sum(1)
    return box_scores * total / np.maximum(seen.sum(1), 1)


def image_ids(files: List[str], known: Dict[str, int]) -> Iterator[int]:
    """A number for each of the files, or frames.

    Those of a data set keep theirs; if all files are called by numbers, as
    COCO's are, it is this number; otherwise they are counted from 1.
    """
    stems = [Path(file).stem for file in files]
    if all(Path(file).name in known for file in files):
        return (known[Path(file).name] for file in files)
    if all(map(str.isdigit, stems)) and len({*map(int, stems)}) == len(files):
        return map(int, stems)
    return count(1)


class PosePredictor(Predictor):
    """Top-down pose estimation.

    Args:
        boxes: ``auto``, ``whole``, ``detector``, a file or what it holds; see
            :func:`.boxes.choose_boxes`.
        box_threshold: Least score of a box.
        keypoint_threshold: Least score of a key point that is drawn.
    """
    unit = 'people'
    files = ('predictions.json', 'images.json')

    def __init__(self,
                 cfg: Config,
                 *args: Any,
                 boxes: Any = 'auto',
                 box_threshold: float = 0.5,
                 keypoint_threshold: float = 0.3,
                 **kwargs: Any):
        super().__init__(cfg, *args, **kwargs)
        if 'num_keypoints' not in self.meta:
            raise ValueError(f'{cfg.filename} does not say what its key '
                             'points are: its test data has no metainfo')
        self.boxes = choose_boxes(boxes, self.device, box_threshold)
        self.notes = (f'boxes: {self.boxes.words}', )
        self.keypoint_threshold = keypoint_threshold

    def complaints(self) -> List[str]:
        return self.boxes.complaints()

    def samples(self, frame: Frame) -> List[dict]:
        corners, scores = self.boxes(frame)
        return [
            self.pack(frame, **self.meta, bbox=corners[i:i + 1],
                      bbox_score=scores[i:i + 1])
            for i in range(len(corners))
        ]

    def gather(self, frame: Frame, results: List[Any]) -> People:
        count = self.meta['num_keypoints']
        if not results:
            return People(np.zeros((0, count, 2)), np.zeros((0, count)),
                          np.zeros(0), Boxes(np.zeros((0, 4)), np.zeros(0)))
        found = [result.pred_instances for result in results]
        boxes = Boxes(np.concatenate([x.bboxes for x in found]),
                      np.concatenate([x.bbox_scores for x in found]))
        points = np.concatenate([x.keypoints for x in found])
        scores = np.concatenate([x.keypoint_scores for x in found])
        people = People(points, scores, person_scores(scores, boxes.scores),
                        boxes)
        areas = [np.prod(r.gt_instances.bbox_scales) for r in results]
        keep = self.distinct(people, areas)
        return People(people.keypoints[keep], people.keypoint_scores[keep],
                      people.scores[keep], Boxes(*(x[keep] for x in boxes)))

    def distinct(self, people: People, areas: List[float]) -> List[int]:
        """Leave out who is there twice, as the metric of COCO's rows does."""
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
        for points, scores, box in zip(found.keypoints, found.keypoint_scores,
                                       found.boxes.corners):
            if self.boxes.is_drawn:
                draw_box(image, box)
            draw_skeleton(image, points, scores >= self.keypoint_threshold,
                          self.meta['skeleton_links'], line_colors,
                          point_colors, box[3] - box[1])
        return image

    def record(self, frame: Frame, found: People) -> dict:
        height, width = frame.image.shape[:2]
        triples = np.dstack([found.keypoints, found.keypoint_scores])
        corners = found.boxes.corners
        sizes = corners[:, 2:] - corners[:, :2]
        people = [
            dict(category_id=1,
                 keypoints=points.flatten().round(4).tolist(),
                 score=round(float(score), 5),
                 bbox=np.hstack([corner[:2], size]).round(2).tolist())
            for points, score, corner, size in zip(triples, found.scores,
                                                   corners, sizes)
        ]  # yapf: disable
        return dict(file_name=frame.label, height=height, width=width,
                    people=people)

    def documents(self, records: List[dict]) -> Dict[str, Any]:
        """COCO's results, and the images that their numbers stand for.

        Evaluators read the former, ``COCO('images.json').loadRes(...)``.
        """
        ids = image_ids([record['file_name'] for record in records],
                        self.boxes.ids)
        images, people = [], []
        for number, record in zip(ids, records):
            image = {k: v for k, v in record.items() if k != 'people'}
            images.append(dict(image, id=number))
            people += [dict(p, image_id=number) for p in record['people']]
        names = [self.meta['keypoint_id2name'][i]
                 for i in range(self.meta['num_keypoints'])]
        links = [[a + 1, b + 1] for a, b in self.meta['skeleton_links']]
        category = dict(id=1, name='person', keypoints=names, skeleton=links)
        return {
            'predictions.json': people,
            'images.json': dict(images=images, annotations=[],
                                categories=[category]),
        }  # yapf: disable
