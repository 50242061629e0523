# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Boxes of the objects in an image: from a file, a detector, or the image."""
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from ..utils.io import read_json
from .box_files import Matcher, Row, read_entries
from .categories import Categories
from .inputs import Frame, Source


class FrameBoxes(NamedTuple):
    """Boxes of one frame."""
    corners: ndarray  # [N, 4], x1, y1, x2, y2 in pixels
    scores: ndarray  # [N]
    categories: ndarray  # [N], ids, or None if unknown


def make_boxes(rows: Any, threshold: float,
               categories: Sequence[Any] | None = None,
               dropped: Counter | None = None) -> FrameBoxes:
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
    return FrameBoxes(corners[keep], table[keep, 4], kinds[keep])


class BoxSource:
    """Base class of the sources that return the boxes of a frame.

    Attributes:
        words: Name of the source in messages.
        is_drawn: Whether the boxes are worth drawing.
        problem: Warning about the choice of the source.
        warn: Called with a message for each image whose boxes are ambiguous.
    """
    words = ''
    is_drawn = True
    problem = ''
    warn: Callable[[str], None] = staticmethod(lambda text: None)

    def __call__(self, frame: Frame) -> FrameBoxes:
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
    """One object that fills the image.

    Args:
        problem: Reason why no other boxes are used.
    """
    words = 'the whole image, for one object in each'
    is_drawn = False

    def __init__(self, problem: str = ''):
        if problem:
            self.problem = (f'{problem}; using {self.words}: with several '
                            'people keypoints will be wrong')

    def __call__(self, frame: Frame) -> FrameBoxes:
        height, width = frame.image.shape[:2]
        return make_boxes([[0, 0, width, height, 1]], 0)


def looks_like_corners(row: Row, width: int, height: int) -> bool:
    """Return whether a row is a box in the image only as x1, y1, x2, y2.

    Boxes of x, y, width, height reach beyond by a few pixels at most.
    """
    x, y, right, bottom = row[:4]
    return (0 <= x < right <= width and 0 <= y < bottom <= height
            and (x + right > 1.05 * width or y + bottom > 1.05 * height))


class CountingSource(BoxSource):
    """A source that drops boxes and reports how many.

    Args:
        threshold: Minimum score.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.counts: Counter = Counter()
        self.ignored: Counter = Counter()  # boxes by category

    def make(self, rows: Sequence[Row],
             categories: Sequence[Any]) -> FrameBoxes:
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

    def __call__(self, frame: Frame) -> FrameBoxes:
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
        height, width = frame.image.shape[:2]
        self.counts['corners'] += sum(
            looks_like_corners(row, width, height) for row in rows)
        boxes = self.make(rows, kinds)
        return self.clip(boxes, frame) if self.is_dataset else boxes

    def image_id(self, frame: Frame) -> Any:
        entry, _ = self.matcher.find(frame)
        return entry.id if entry else None

    def clip(self, boxes: FrameBoxes, frame: Frame) -> FrameBoxes:
        """Clip labelled boxes to the image, as MMPose's datasets do."""
        height, width = frame.image.shape[:2]
        last = np.array([width, height, width, height], np.float32) - 1
        return boxes._replace(corners=boxes.corners.clip(0, last))

    def report(self) -> list[str]:
        lines = super().report()
        if 2 * self.counts['corners'] > self.counts['all']:
            lines.append(
                f"{self.counts['corners']} of {self.counts['all']} boxes of "
                f'{self.words} reach beyond their image, but would fit as x1, '
                'y1, x2, y2: boxes are x, y, width, height')
        return lines

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
