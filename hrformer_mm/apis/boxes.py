# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Where people are: read from a file, detected, or the whole image."""
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from numpy import ndarray
from numpy.typing import ArrayLike

from ..checkpoints.files import read_checkpoint, weight_folders
from .inputs import Frame

# Detectors of torchvision, the most accurate first.
DETECTORS = ('fasterrcnn_resnet50_fpn_v2', 'retinanet_resnet50_fpn_v2',
             'fasterrcnn_resnet50_fpn', 'retinanet_resnet50_fpn',
             'fcos_resnet50_fpn', 'fasterrcnn_mobilenet_v3_large_fpn',
             'fasterrcnn_mobilenet_v3_large_320_fpn',
             'ssdlite320_mobilenet_v3_large')  # yapf: disable
PERSON = 1  # category of COCO
FORMATS = ('a list of {"image_id", "bbox"} as detectors write it, a COCO data '
           'set, or {"photo.jpg": [[x, y, width, height, score], ...]}')


class Boxes(NamedTuple):
    """Boxes of one frame."""
    corners: ndarray  # [N, 4], x1, y1, x2, y2 in pixels
    scores: ndarray  # [N]


def make_boxes(rows: ArrayLike, threshold: float) -> Boxes:
    """Boxes of rows (x, y, width, height, score) that are no mistake.

    Args:
        threshold: Least score.
    """
    table = np.array(rows, np.float32).reshape(-1, 5)
    corners = np.hstack([table[:, :2], table[:, :2] + table[:, 2:4]])
    good = np.isfinite(table).all(1) & (table[:, 2:4] > 0).all(1)
    good &= table[:, 4] >= threshold
    return Boxes(corners[good], table[good, 4])


class BoxSource:
    """Gives the boxes of a frame.

    Attributes:
        words: That tell the user of it.
        is_drawn: Whether the boxes are worth drawing.
        ids: Numbers of images that have one, by name.
    """
    words = ''
    is_drawn = True
    ids: Dict[str, int] = {}

    def __call__(self, frame: Frame) -> Boxes:
        raise NotImplementedError

    def complaints(self) -> List[str]:
        """What was not as it should be, in the end."""
        return []


class WholeImage(BoxSource):
    """One person, who fills the image."""
    words = 'the whole image, for one person'
    is_drawn = False

    def __call__(self, frame: Frame) -> Boxes:
        height, width = frame.image.shape[:2]
        return make_boxes([[0, 0, width, height, 1]], 0)


def names_of(label: str) -> Iterator[Any]:
    """What a file may call an image, the most exact first."""
    file, _, index = label.rpartition('#')
    path = Path(file or label)
    number = f'#{index}' if path != Path(label) else ''
    yield label
    yield path.name + number
    yield path.stem + number
    if path.stem.isdigit() and not number:
        yield int(path.stem)


def rows_of(content: Any) -> Iterator[Tuple[Any, List[float], int]]:
    """Name of the image, box with score and category of all boxes in a file.

    Raises:
        ValueError: If the content has another form.
    """
    try:
        if isinstance(content, dict) and 'annotations' in content:
            files = {image['id']: image['file_name']
                     for image in content['images']}
            content = [dict(row, image_id=files[row['image_id']])
                       for row in content['annotations']
                       if not row.get('iscrowd')]
        if isinstance(content, dict):
            content = [dict(image_id=name, bbox=box[:4], score=(*box, 1)[4])
                       for name, boxes in content.items() for box in boxes]
        for row in content:
            x, y, width, height = map(float, row['bbox'])
            yield (row['image_id'],
                   [x, y, width, height, float(row.get('score', 1))],
                   row.get('category_id', PERSON))
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise ValueError(f'boxes are {FORMATS}; this file is none of them '
                         f'({type(error).__name__}: {error})') from None


class BoxTable(BoxSource):
    """Boxes that are known, in any of ``FORMATS``.

    Of several categories, only the first one counts, people. Frames of a film
    are called ``clip.mp4#0``, ``clip.mp4#1`` and so on.

    Args:
        content: Of a JSON file.
        threshold: Least score.
        words: What to call it.

    Raises:
        ValueError: If it has another form.
    """

    def __init__(self, content: Any, threshold: float, words: str = 'given'):
        self.words, self.threshold = words, threshold
        rows = list(rows_of(content))
        several = len({category for _, _, category in rows}) > 1
        self.rows: Dict[Any, List[List[float]]] = defaultdict(list)
        for name, row, category in rows:
            if category == PERSON or not several:
                self.rows[name].append(row)
        for name in [name for name in self.rows if isinstance(name, str)]:
            self.rows.setdefault(Path(name).name, self.rows[name])
        images = content.get('images', ()) if isinstance(content, dict) else ()
        self.ids = {Path(i['file_name']).name: i['id'] for i in images}
        self.used = False

    def __call__(self, frame: Frame) -> Boxes:
        for name in names_of(frame.label):
            if name in self.rows or name in self.ids:
                self.used = True
                boxes = make_boxes(self.rows.get(name, []), self.threshold)
                return self.clip(boxes, frame) if self.ids else boxes
        return make_boxes([], self.threshold)

    def clip(self, boxes: Boxes, frame: Frame) -> Boxes:
        """Labelled boxes end with the image, as in MMPose's data sets."""
        height, width = frame.image.shape[:2]
        last = np.array([width, height, width, height], np.float32) - 1
        return boxes._replace(corners=boxes.corners.clip(0, last))

    def complaints(self) -> List[str]:
        if self.used:
            return []
        names = ', '.join(map(repr, list(self.rows)[:3]))
        return [f'{self.words} has no boxes for any of these images; its '
                f'images are called {names} ...']


def read_boxes(path: str, threshold: float) -> BoxTable:
    """Boxes from a JSON file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it has another form.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no boxes at {path}: --boxes is whole, '
                                'detector or a JSON file')
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}') from None
    return BoxTable(content, threshold, path)


def find_detector() -> Optional[Tuple[str, Path]]:
    """Name and weights of the best detector of torchvision that is here.

    Looks where torchvision keeps what it downloads, in ``weights`` and in
    ``$HRFORMER_MM_WEIGHTS``.
    """
    from torchvision.models import get_model_weights
    folders = [Path(torch.hub.get_dir()) / 'checkpoints', *weight_folders()]
    for name in DETECTORS:
        file = get_model_weights(name).DEFAULT.url.rpartition('/')[2]
        for folder in folders:
            if (folder / file).is_file():
                return name, folder / file
    return None


class Detector(BoxSource):
    """People found by a detector of torchvision, trained on COCO.

    Args:
        device: Where it runs.
        threshold: Least score.

    Raises:
        FileNotFoundError: If the weights of none are here.
    """

    def __init__(self, device: str, threshold: float):
        from torchvision.models import get_model
        found = find_detector()
        if found is None:
            raise FileNotFoundError(
                'no weights of a detector of torchvision are here; once, with '
                'a network: python -c "from torchvision.models import '
                f"get_model; get_model('{DETECTORS[0]}', weights='DEFAULT')\"")
        name, path = found
        self.model = get_model(name, weights=None, weights_backbone=None)
        self.model.load_state_dict(read_checkpoint(path))
        self.model.to(device).eval()
        self.words, self.device, self.threshold = name, device, threshold

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Boxes:
        image = torch.from_numpy(frame.image[..., ::-1].copy())
        image = image.permute(2, 0, 1).to(self.device) / 255  # [3, H, W]
        found = {k: v.cpu().numpy() for k, v in self.model([image])[0].items()}
        people = found['labels'] == PERSON
        x1, y1, x2, y2 = found['boxes'][people].T
        rows = np.stack([x1, y1, x2 - x1, y2 - y1, found['scores'][people]], 1)
        return make_boxes(rows, self.threshold)


def choose_boxes(word: Any, device: str, threshold: float) -> BoxSource:
    """What ``--boxes`` names.

    Args:
        word: ``whole``, ``detector``, a JSON file, or ``auto``, which is the
            detector if its weights are here and else the whole image. Or the
            content of a JSON file, or any :class:`BoxSource`.
        device: Of the detector.
        threshold: Least score.

    Raises:
        FileNotFoundError: For the file, or the weights of a detector.
        ValueError: For what the file holds.
    """
    if isinstance(word, BoxSource):
        return word
    if not isinstance(word, str):
        return BoxTable(word, threshold)
    if word == 'whole' or word == 'auto' and find_detector() is None:
        return WholeImage()
    if word in ('auto', 'detector'):
        return Detector(device, threshold)
    return read_boxes(word, threshold)
