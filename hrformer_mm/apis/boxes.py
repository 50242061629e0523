# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Boxes of the objects in an image: from a file, a detector, or the image."""
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    NamedTuple,
)

import numpy as np
import torch
from numpy import ndarray

from ..checkpoints.files import read_checkpoint, weight_folders
from ..utils.io import read_json
from .box_files import Matcher, Row, read_entries
from .categories import PERSON, Categories
from .inputs import Frame, Source

# Detectors of torchvision, the most accurate first.
DETECTORS = ('fasterrcnn_resnet50_fpn_v2', 'retinanet_resnet50_fpn_v2',
             'fasterrcnn_resnet50_fpn', 'retinanet_resnet50_fpn',
             'fcos_resnet50_fpn', 'fasterrcnn_mobilenet_v3_large_fpn',
             'fasterrcnn_mobilenet_v3_large_320_fpn',
             'ssdlite320_mobilenet_v3_large')  # yapf: disable


class Boxes(NamedTuple):
    """Boxes of one frame."""
    corners: ndarray  # [N, 4], x1, y1, x2, y2 in pixels
    scores: ndarray  # [N]
    categories: ndarray  # [N], ids, or None if unknown


def make_boxes(rows: Any, threshold: float,
               categories: Sequence[Any] | None = None,
               dropped: Counter | None = None) -> Boxes:
    """Convert rows (x, y, width, height, score) to boxes, dropping bad ones.

    Args:
        rows: Boxes in pixels.
        threshold: Minimum score.
        categories: Category of each row.
        dropped: Counts the boxes that are dropped: ``invalid`` ones, and
            those with a ``low`` score.
    """
    table = np.array(rows, np.float32).reshape(-1, 5)
    kinds = np.empty(len(table), object)
    kinds[:] = categories if categories is not None else None
    corners = np.hstack([table[:, :2], table[:, :2] + table[:, 2:4]])
    valid = np.isfinite(table).all(1) & (table[:, 2:4] > 0).all(1)
    high = table[:, 4] >= threshold
    if dropped is not None:
        dropped['all'] += len(table)
        dropped['invalid'] += int((~valid).sum())
        dropped['low'] += int((valid & ~high).sum())
    keep = valid & high
    return Boxes(corners[keep], table[keep, 4], kinds[keep])


class BoxSource:
    """Base class of the sources that return the boxes of a frame.

    Attributes:
        words: Name of the source in messages.
        is_drawn: Whether the boxes are worth drawing.
        warn: Called with a message for each image whose boxes are ambiguous.
    """
    words = ''
    is_drawn = True
    warn: Callable[[str], None] = staticmethod(lambda text: None)

    def __call__(self, frame: Frame) -> Boxes:
        raise NotImplementedError

    def expect(self, sources: Iterable[Source]):
        """Register all images before the first one is requested."""

    def image_id(self, frame: Frame) -> Any:
        """Return the id of a frame in its dataset, if it has one."""
        return None

    def complaints(self) -> list[str]:
        """Return the errors found, after the last frame."""
        return []

    def report(self) -> list[str]:
        """Return the notes for the user, after the last frame."""
        return []


class WholeImage(BoxSource):
    """One object that fills the image."""
    words = 'the whole image, for one object in each'
    is_drawn = False

    def __call__(self, frame: Frame) -> Boxes:
        height, width = frame.image.shape[:2]
        return make_boxes([[0, 0, width, height, 1]], 0)


class CountingSource(BoxSource):
    """A source that drops boxes and reports how many.

    Args:
        threshold: Minimum score.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.counts: Counter = Counter()
        self.ignored: Counter = Counter()  # boxes by category

    def make(self, rows: Sequence[Row], categories: Sequence[Any]) -> Boxes:
        boxes = make_boxes(rows, self.threshold, categories, self.counts)
        self.counts['kept'] += len(boxes.scores)
        return boxes

    def describe(self, category: Any) -> str:
        return str(category)

    def report(self) -> list[str]:
        lines, total = [], self.counts['all']
        if self.counts['low']:
            lines.append(
                f"dropped {self.counts['low']} of {total} boxes with a score "
                f'below {self.threshold:g} (--box-thr)')
        if self.counts['invalid']:
            lines.append(f"dropped {self.counts['invalid']} of {total} boxes "
                         'that have no area or are not finite')
        if self.ignored:
            kinds = ', '.join(f'{self.describe(k)}: {n}'
                              for k, n in self.ignored.most_common(10))
            lines.append(f'ignored {sum(self.ignored.values())} boxes of '
                         f'other categories ({kinds}); select categories '
                         'with --box-categories')
        return lines


class BoxTable(CountingSource):
    """Known boxes, in any of :data:`.box_files.FORMATS`.

    Args:
        content: Content of a JSON file.
        threshold: Minimum score.
        categories: Decides which boxes count.
        words: Name of the file in messages.

    Raises:
        ValueError: If the content has another format.
    """

    def __init__(self, content: Any, threshold: float,
                 categories: Categories | None = None,
                 words: str = 'given'):
        super().__init__(threshold)
        self.words = words
        self.categories = categories or Categories()
        self.entries = read_entries(content)
        self.is_dataset = isinstance(content,
                                     dict) and 'annotations' in content
        self.matcher = Matcher(self.entries)
        self.present: dict[Any, Mapping] = {
            category: dict(name=category) if isinstance(
                category, str) else {} for entry in self.entries.values()
            for _, category in entry.rows if category is not None
        }  # yapf: disable
        if self.is_dataset:
            self.present.update(
                (c['id'], c) for c in content.get('categories') or ()
                if c.get('id') in self.present)
        self.selected: set[Any] = self.categories.select(self.present)
        self.used = False
        self.warned: set[str] = set()

    def describe(self, category: Any) -> str:
        name = self.present.get(category, {}).get('name', '')
        return f'{category} {name}'.strip()

    def expect(self, sources: Iterable[Source]):
        self.matcher.add(sources)

    def __call__(self, frame: Frame) -> Boxes:
        entry, reason = self.matcher.find(frame)
        if reason and frame.source.path not in self.warned:
            self.warned.add(frame.source.path)
            self.warn(f'{frame.source.path}: no boxes are used because '
                      f'{reason} in {self.words}; include the folders in '
                      'its image names')
        if entry is None:
            return self.make([], [])
        self.used = True
        rows: list[Row] = []
        kinds: list[Any] = []
        for row, category in entry.rows:
            if category is None or category in self.selected:
                rows.append(row)
                kinds.append(category)
            else:
                self.ignored[category] += 1
        boxes = self.make(rows, kinds)
        return self.clip(boxes, frame) if self.is_dataset else boxes

    def image_id(self, frame: Frame) -> Any:
        entry, _ = self.matcher.find(frame)
        return entry.id if entry else None

    def clip(self, boxes: Boxes, frame: Frame) -> Boxes:
        """Clip labelled boxes to the image, as MMPose's datasets do."""
        height, width = frame.image.shape[:2]
        last = np.array([width, height, width, height], np.float32) - 1
        return boxes._replace(corners=boxes.corners.clip(0, last))

    def complaints(self) -> list[str]:
        if self.used and self.counts['all'] and not self.counts['kept']:
            return [f'all boxes of {self.words} were dropped; {line}'
                    for line in self.report()[:1]]
        if self.used or self.warned:
            return []
        names = ', '.join(repr(str(e)) for e in [*self.entries.values()][:3])
        return [f'{self.words} has no boxes for any of these images; its '
                f'images are named {names} ...']


def read_boxes(path: str, threshold: float,
               categories: Categories | None = None) -> BoxTable:
    """Read boxes from a JSON file.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it has another format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no boxes at {path}: --boxes must be '
                                'whole, detector or a JSON file')
    return BoxTable(read_json(path), threshold, categories, str(path))


def find_detector() -> tuple[str, Path] | None:
    """Return name and weights of torchvision's best available detector.

    Looks in torchvision's download folder, in ``weights`` and in
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


def detected_categories(name: str, categories: Categories) -> set[int]:
    """Return the labels of a detector that match a model's categories.

    The set is empty if the detector has none of them.
    """
    from torchvision.models import get_model_weights
    names = get_model_weights(name).DEFAULT.meta['categories']
    present = {i: dict(name=word) for i, word in enumerate(names)
               if word not in ('__background__', 'N/A')}
    categories.seen.update(present)
    if categories.is_person and not categories.chosen:
        return {PERSON}
    found = categories.select(present)
    return set() if found == set(present) else found


class Detector(CountingSource):
    """Objects found by a detector of torchvision, trained on COCO.

    Args:
        device: Device that it runs on.
        threshold: Minimum score.
        categories: Decides which objects count; people by default.

    Raises:
        FileNotFoundError: If no detector has weights.
        ValueError: If the detector has none of the categories.
    """

    def __init__(self, device: str, threshold: float,
                 categories: Categories | None = None):
        from torchvision.models import get_model
        super().__init__(threshold)
        found = find_detector()
        if found is None:
            raise FileNotFoundError(
                'no weights of a torchvision detector found; download them '
                'once: python -c "from torchvision.models import '
                f"get_model; get_model('{DETECTORS[0]}', weights='DEFAULT')\"")
        name, path = found
        self.labels = {PERSON} if categories is None else detected_categories(
            name, categories)
        if not self.labels:
            raise ValueError(
                f"{name} detects COCO's classes, which are not those of this "
                'model; select classes with --box-categories, or use boxes of '
                'another detector with --boxes FILE')
        self.model = get_model(name, weights=None, weights_backbone=None)
        self.model.load_state_dict(read_checkpoint(path))
        self.model.to(device).eval()
        self.words, self.device = name, device

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Boxes:
        image = torch.from_numpy(frame.image[..., ::-1].copy())
        image = image.permute(2, 0, 1).to(self.device) / 255  # [3, H, W]
        found = {k: v.cpu().numpy() for k, v in self.model([image])[0].items()}
        chosen = np.isin(found['labels'], list(self.labels))
        x1, y1, x2, y2 = found['boxes'][chosen].T
        rows = np.stack([x1, y1, x2 - x1, y2 - y1, found['scores'][chosen]], 1)
        return self.make(rows.tolist(), found['labels'][chosen].tolist())


def choose_boxes(word: Any, device: str, threshold: float,
                 categories: Categories | None = None) -> BoxSource:
    """Return the source of boxes that ``--boxes`` selects.

    Args:
        word: ``whole``, ``detector``, the path of a JSON file, or ``auto``:
            the detector if its weights are available and it has the model's
            categories, otherwise the whole image. Also the content of a JSON
            file, or any :class:`BoxSource`.
        device: Device of the detector.
        threshold: Minimum score.
        categories: Decides which boxes count.

    Raises:
        FileNotFoundError: If the file or a detector's weights are missing.
        ValueError: If the file has another format.
    """
    if isinstance(word, BoxSource):
        return word
    if isinstance(word, os.PathLike):
        word = os.fspath(word)
    if not isinstance(word, str):
        return BoxTable(word, threshold, categories)
    if word == 'auto':
        found = find_detector()
        known = found and (categories is None
                           or detected_categories(found[0], categories))
        word = 'detector' if known else 'whole'
    if word == 'whole':
        return WholeImage()
    if word == 'detector':
        return Detector(device, threshold, categories)
    return read_boxes(word, threshold, categories)
