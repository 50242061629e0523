# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""COCO evaluation with the additions of xtcocotools.

Those are sigmas for any keypoints, areas estimated from boxes, the parts of
COCO-WholeBody, and the three levels of crowding of CrowdPose. pycocotools
gets copies of annotations and results in which the keypoints, score and area
are those to compare, and evaluates them as people of COCO.
"""
import warnings
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from pycocotools import cocoeval

# Fields with the keypoints that an IoU type compares, and with their score.
PARTS: Dict[str, Tuple[Tuple[str, ...], str]] = {
    'keypoints_wholebody': (('keypoints', 'foot_kpts', 'face_kpts',
                             'lefthand_kpts', 'righthand_kpts'),
                            'wholebody_score'),
    'keypoints_foot': (('foot_kpts', ), 'foot_score'),
    'keypoints_face': (('face_kpts', ), 'face_score'),
    'keypoints_lefthand': (('lefthand_kpts', ), 'lefthand_score'),
    'keypoints_righthand': (('righthand_kpts', ), 'righthand_score'),
}
WHOLE = (('keypoints', ), 'score')
BOX_SHARE = 0.53  # of a box, that the area of a person is taken for
EASY, HARD = 0.2, 0.8  # limits of the crowd index
LEVELS = ('easy', 'medium', 'hard')


class Params(cocoeval.Params):
    """Parameters of an evaluation; all IoU types of keypoints share them."""

    def __init__(self, iouType: str = 'segm'):
        super().__init__('keypoints' if 'keypoints' in iouType else iouType)
        self.iouType = iouType


def box_area(annotation: dict) -> float:
    """Estimate the area of a person from its box."""
    return annotation['bbox'][2] * annotation['bbox'][3] * BOX_SHARE


class COCOeval(cocoeval.COCOeval):
    """Evaluation of detections, masks and keypoints.

    Args:
        cocoGt: Annotations, an ``xtcocotools.coco.COCO``.
        cocoDt: Results, as its ``loadRes`` returns them.
        iouType: ``'segm'``, ``'bbox'``, ``'keypoints'``,
            ``'keypoints_crowd'``, or a part of COCO-WholeBody, see
            :data:`PARTS`.
        sigmas: Standard deviation of each keypoint; those of COCO by default.
        use_area: Use the areas of annotations; estimate them from the boxes
            otherwise, as CrowdPose and AI Challenger have none.
    """

    def __init__(self,
                 cocoGt: Any = None,
                 cocoDt: Any = None,
                 iouType: str = 'keypoints',
                 sigmas: Optional[Sequence[float]] = None,
                 use_area: bool = True):
        super().__init__(cocoGt, cocoDt, 'keypoints')
        params = Params(iouType)
        params.imgIds, params.catIds = self.params.imgIds, self.params.catIds
        self.params: Any = params
        coco_sigmas = Params('keypoints').kpt_oks_sigmas
        self.sigmas = coco_sigmas if sigmas is None else sigmas
        self.use_area = use_area
        self.score_key = 'score'
        self.evalImgs: List[Optional[dict]] = []
        self.stats: Any = []
        self.anno_file = getattr(cocoGt, 'anno_file', [])

    @contextmanager
    def as_people(self) -> Iterator[str]:
        """Show pycocotools the only IoU type of keypoints that it knows."""
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
        if points:  # or pycocotools would ask for a field of COCO's people
            self.params.iouType = 'bbox'
        super()._prepare()
        self.params.iouType = shown
        key = PARTS.get(self.kind, WHOLE)[1]
        # The score of a part is only looked for if there are annotations.
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

    def points_of(self, annotation: dict) -> List[float]:
        """Keypoints of the parts to compare, as x, y, visibility."""
        fields, _ = PARTS.get(self.kind, WHOLE)
        return [value for name in fields for value in annotation[name]]

    def prepare_truth(self, annotation: dict) -> dict:
        """Copy an annotation with the fields that pycocotools reads.

        The id 0 would read as "no match", so ids are counted from 1.
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

    def prepare_result(self, result: dict) -> Optional[dict]:
        """Copy a result, or drop it if it scores no keypoint above 0."""
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
            KeyError: For annotations without area, unless ``use_area`` is
                False.
        """
        gts = self._gts[imgId, catId]
        if self.use_area and gts and self._dts[imgId, catId]:
            for gt in gts:
                if 'area' not in self.cocoGt.anns[gt['id'] - 1]:
                    raise KeyError(f"annotation {gt['id'] - 1} has no 'area'; "
                                   'pass use_area=False to estimate it')
        return super().computeOks(imgId, catId)

    def evaluateImg(self, *args: Any) -> Optional[dict]:
        """Match results with the annotations of an image.

        Returns:
            As pycocotools, but -1 stands for "no match".
        """
        found = super().evaluateImg(*args)
        if found is not None:
            for name in ('dtIds', 'gtIds'):
                found[name] = [i - 1 for i in found[name]]
            for name in ('dtMatches', 'gtMatches'):
                found[name] = found[name].astype(np.int64) - 1
        return found

    def evaluate(self) -> None:
        """Match all images."""
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
        """Print the summary, and keep its numbers in ``stats``."""
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
              second: float = HARD) -> Tuple[list, list, list]:
        """Sort images by their crowd index: easy, medium and hard ones."""
        images = self.cocoGt.dataset['images']
        return ([i['id'] for i in images if i['crowdIndex'] < first],
                [i['id'] for i in images if first <= i['crowdIndex'] < second],
                [i['id'] for i in images if not i['crowdIndex'] < second])

    def get_type_result(self,
                        first: float = EASY,
                        second: float = HARD) -> List[float]:
        """Return the average precision of each level of crowding."""
        result = []
        with redirect_stdout(StringIO()):
            for images in self.split(first, second):
                self.params.imgIds = images
                self.evaluate()
                self.accumulate()
                score = self.eval['precision'][:, :, :, 0, :]
                result.append(round(float(np.mean(score)), 4))
        return result
