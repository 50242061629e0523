# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""COCO annotations with the additions of xtcocotools."""
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import coco


class COCO(coco.COCO):
    """Annotations in COCO format, with fewer required fields.

    Args:
        annotation_file: Path of a JSON file.
        test_index: Indices of the keypoints to keep.
        ann_data: Content of the file, if it is already loaded.
    """

    def __init__(self,
                 annotation_file: str | None = None,
                 test_index: Sequence[int] | None = None,
                 ann_data: dict | None = None):
        super().__init__(annotation_file if ann_data is None else None)
        # The evaluation of CrowdPose reads the names of both files here.
        self.anno_file: list[Any] = [annotation_file]
        self.test_index = test_index
        if ann_data is not None:
            assert isinstance(ann_data, dict), (
                f'annotation file format {type(ann_data)} not supported')
            self.dataset = ann_data
        for annotation in self.dataset.get('annotations', []):
            annotation.setdefault('iscrowd', False)
            if test_index is not None:
                points = np.reshape(annotation['keypoints'], (-1, 3))
                annotation['keypoints'] = (
                    points[test_index].flatten().tolist())
        if ann_data is not None:
            self.createIndex()

    def getAnnIds(self,
                  imgIds: Any = [],
                  catIds: Any = [],
                  areaRng: Sequence[float] = [],
                  iscrowd: bool | None = None) -> list:
        """Return annotation ids; ``areaRng`` includes its lower limit."""
        found = super().getAnnIds(imgIds, catIds, [], iscrowd)
        if not len(areaRng):
            return found
        low, high = areaRng
        return [i for i in found if low <= self.anns[i]['area'] < high]

    def loadRes(self,
                resFile: str | np.ndarray | list[dict],
                resData: list[dict] | None = None) -> 'COCO':
        """Load results; an empty list is allowed.

        Args:
            resFile: Path of a JSON file, or the results.
            resData: Content of the file, if it is already loaded.
        """
        if len(self.anno_file) == 1:
            self.anno_file.append(resFile)
        if isinstance(resFile, str):
            if resData is None:
                with open(resFile, encoding='utf-8-sig') as file:
                    resData = json.load(file)
            resFile = resData
        result = COCO()
        if isinstance(resFile, list) and not resFile:
            result.dataset = dict(
                images=list(self.dataset['images']), annotations=[])
        else:
            result.dataset = super().loadRes(resFile).dataset
        result.createIndex()
        return result
