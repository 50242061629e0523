# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""COCO evaluation with the additions of xtcocotools.

These are sigmas for any keypoints, areas estimated from boxes, the parts of
COCO-WholeBody, and the three crowding levels of CrowdPose. pycocotools
receives copies of annotations and results with the keypoints, score and area
to compare, and evaluates them as COCO keypoints.
"""
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from pycocotools import cocoeval

# Fields of the keypoints, and of the score, that an IoU type compares.
PARTS: dict[str, tuple[tuple[str, ...], str]] = {
    'keypoints_wholebody': (('keypoints', 'foot_kpts', 'face_kpts',
                             'lefthand_kpts', 'righthand_kpts'),
                            'wholebody_score'),
    'keypoints_foot': (('foot_kpts', ), 'foot_score'),
    'keypoints_face': (('face_kpts', ), 'face_score'),
    'keypoints_lefthand': (('lefthand_kpts', ), 'lefthand_score'),
    'keypoints_righthand': (('righthand_kpts', ), 'righthand_score'),
}
WHOLE = (('keypoints', ), 'score')
BOX_SHARE = 0.53  # estimated area of a person, relative to the box
EASY, HARD = 0.2, 0.8  # limits of the crowd index
LEVELS = ('easy', 'medium', 'hard')


class Params(cocoeval.Params):
    """Parameters of an evaluation, equal for all IoU types of keypoints."""

    def __init__(self, iouType: str = 'segm'):
        super().__init__('keypoints' if 'keypoints' in iouType else iouType)
        self.iouType = iouType


def box_area(annotation: dict) -> float:
    """Estimate the area of a person from its box."""
    return annotation['bbox'][2] * annotation['bbox'][3] * BOX_SHARE


class COCOeval(cocoeval.COCOeval):
    """Evaluation of detections, masks and keypoints.

    Args:
        cocoGt: Annotations.
        cocoDt: Results, as returned by ``loadRes`` of the annotations.
        iouType: ``'segm'``, ``'bbox'``, ``'keypoints'``,
            ``'keypoints_crowd'``, or a part of COCO-WholeBody, see
            :data:`PARTS`.
        sigmas: Standard deviation of each keypoint (default: those of COCO).
        use_area: Whether to use the areas of annotations. If False, they are
            estimated from boxes, as for CrowdPose and AI Challenger.
    """

    def __init__(self,
                 cocoGt: Any = None,
                 cocoDt: Any = None,
                 iouType: str = 'keypoints',
                 sigmas: Sequence[float] | None = None,
                 use_area: bool = True):
        super().__init__(cocoGt, cocoDt, 'keypoints')
        params = Params(iouType)
        params.imgIds, params.catIds = self.params.imgIds, self.params.catIds
        self.params: Any = params
        coco_sigmas = Params('keypoints').kpt_oks_sigmas
        self.sigmas = coco_sigmas if sigmas is None else sigmas
        self.use_area = use_area
        self.score_key = 'score'
        self.evalImgs: list[dict | None] = []
        self.stats: Any = []
        self.anno_file = getattr(cocoGt, 'anno_file', [])

    @contextmanager
    def as_people(self) -> Iterator[str]:
        """Set the IoU type to ``'keypoints'``, which pycocotools supports."""
        params, kind = self.params, self.params.iouType
        if 'keypoints' in kind:
            params.iouType = 'keypoints'
        try:
            yield kind
        finally:
            params.iouType = kind

    def _prepare(self) -> None:
        """Sort copies of annotations and results by image and category."""
        points, shown = 'keypoints' in self.kind, self.params.iouType
        if points:  # or pycocotools would read num_keypoints
            self.params.iouType = 'bbox'
        super()._prepare()
        self.params.iouType = shown
        key = PARTS.get(self.kind, WHOLE)[1]
        # The score of a part is only used if there are annotations.
        self.score_key = key if points and self._gts else 'score'
        results = [dt for found in self._dts.values() for dt in found]
        if any(self.score_key not in dt for dt in results):
            warnings.warn(
                f"'{self.score_key}' not found, use 'score' instead.")
        for groups, prepare in ((self._gts, self.prepare_truth),
                                (self._dts, self.prepare_result)):
            for place, found in groups.items():
                copies = map(prepare, found)
                groups[place] = [c for c in copies if c is not None]

    def points_of(self, annotation: dict) -> list[float]:
        """Return keypoints of the parts to compare, as x, y, visibility."""
        fields, _ = PARTS.get(self.kind, WHOLE)
        return [value for name in fields for value in annotation[name]]

    def prepare_truth(self, annotation: dict) -> dict:
        """Copy an annotation with the fields that pycocotools reads.

        An id of 0 would mean "no match", so ids are counted from 1.
        """
        changed = dict(annotation, id=annotation['id'] + 1)
        if not self.use_area or 'area' not in annotation:
            changed['area'] = box_area(annotation)
        if 'keypoints' in self.kind:
            changed['keypoints'] = points = self.points_of(annotation)
            visible = np.count_nonzero(np.asarray(points)[2::3] > 0)
            if self.kind == 'keypoints_crowd':  # labelled ones do not count
                visible = annotation['num_keypoints']
            changed['ignore'] = visible == 0 or annotation['ignore']
        return changed

    def prepare_result(self, result: dict) -> dict | None:
        """Copy a result; return None if no keypoint has a score above 0."""
        changed = dict(result, id=result['id'] + 1,
                       score=result.get(self.score_key, result['score']))
        if 'keypoints' in self.kind:
            changed['keypoints'] = points = self.points_of(result)
            if not np.any(np.asarray(points)[2::3] > 0):
                return None
        return changed

    def computeOks(self, imgId: int, catId: int) -> Any:
        """Return similarities [results, annotations] of an image.

        Raises:
            KeyError: If an annotation has no area and ``use_area`` is True.
        """
        gts = self._gts[imgId, catId]
        if self.use_area and gts and self._dts[imgId, catId]:
            for gt in gts:
                if 'area' not in self.cocoGt.anns[gt['id'] - 1]:
                    raise KeyError(f"annotation {gt['id'] - 1} has no 'area'; "
                                   'pass use_area=False to estimate it')
        return super().computeOks(imgId, catId)

    def evaluateImg(self, *args: Any) -> dict | None:
        """Match results with the annotations of an image.

        Returns:
            Matches as returned by pycocotools, with -1 for "no match".
        """
        found = super().evaluateImg(*args)
        if found is not None:
            for name in ('dtIds', 'gtIds'):
                found[name] = [i - 1 for i in found[name]]
            for name in ('dtMatches', 'gtMatches'):
                found[name] = found[name].astype(np.int64) - 1
        return found

    def evaluate(self) -> None:
        """Match results and annotations of all images."""
        params = self.params
        params.kpt_oks_sigmas = np.asarray(self.sigmas)
        if params.useSegm is not None:  # deprecated
            params.iouType = 'segm' if params.useSegm == 1 else 'bbox'
        with self.as_people() as self.kind:
            super().evaluate()
        self._paramsEval.iouType = self.kind

    def accumulate(self, p: Any = None) -> None:
        """Compute precision and recall from the matches of all images."""
        matches = self.evalImgs
        self.evalImgs = [
            e and dict(e, dtMatches=e['dtMatches'] + 1) for e in matches
        ]
        try:
            super().accumulate(p)
        finally:
            self.evalImgs = matches

    def summarize(self) -> None:
        """Print the summary and store its numbers in ``stats``."""
        printed = StringIO()
        with self.as_people() as kind, redirect_stdout(printed):
            super().summarize()
        crowd = kind == 'keypoints_crowd'
        for line in printed.getvalue().splitlines():
            if not crowd or 'area=   all' in line:
                print(line)
        if crowd:
            levels = self.get_type_result(EASY, HARD)
            for level, value in zip(LEVELS, levels):
                print(' Average Precision  (AP) @[ IoU=0.50:0.95 | '
                      f'type={level:>6} | maxDets= 20 ] = {value:0.3f}')
            self.stats = np.array(
                [*self.stats[:3], *self.stats[5:8], *levels])

    def split(self,
              first: float = EASY,
              second: float = HARD) -> tuple[list, list, list]:
        """Split images by crowd index into easy, medium and hard ones."""
        images = self.cocoGt.dataset['images']
        return ([i['id'] for i in images if i['crowdIndex'] < first],
                [i['id'] for i in images if first <= i['crowdIndex'] < second],
                [i['id'] for i in images if not i['crowdIndex'] < second])

    def get_type_result(self,
                        first: float = EASY,
                        second: float = HARD) -> list[float]:
        """Return the average precision of each crowding level."""
        result = []
        with redirect_stdout(StringIO()):
            for images in self.split(first, second):
                self.params.imgIds = images
                self.evaluate()
                self.accumulate()
                score = self.eval['precision'][:, :, :, 0, :]
                result.append(round(float(np.mean(score)), 4))
        return result
