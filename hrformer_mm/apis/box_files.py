# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Match images with the entries of a file of boxes, by path."""
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from .inputs import Frame, Source

FORMATS = ('a list of {"image_id", "bbox"} as detectors write it, a COCO '
           'dataset, or {"photo.jpg": [[x, y, width, height, score], ...]}')
Parts = tuple[str, ...]
Row = list[float]  # x, y, width, height, score


@dataclass
class ImageBoxes:
    """Boxes of one image.

    Attributes:
        key: Parts of the image's path, or its number.
        rows: Boxes, each with its category.
        id: Id of the image in a dataset.
    """
    key: Any
    rows: list[tuple[Row, Any]] = field(default_factory=list)
    id: Any = None

    def __str__(self) -> str:
        return '/'.join(self.key) if isinstance(self.key, tuple) else str(
            self.key)


def key_of(name: Any) -> Any:
    """Return the key by which an image's name or number is looked up."""
    if not isinstance(name, (str, os.PathLike)):
        return name
    path = posixpath.normpath(os.fspath(name).replace('\\', '/'))
    return tuple(p for p in path.split('/') if p not in ('', '.', '..'))


def category_of(row: Any) -> Any:
    """Return the category of a box: its id, else its name."""
    for key in ('category_id', 'category_name', 'category'):
        if row.get(key) is not None:
            return row[key]
    return None


def read_entries(content: Any) -> dict[Any, ImageBoxes]:
    """Return the boxes in the content of a JSON file, by image.

    Raises:
        ValueError: If the content has none of the ``FORMATS``.
    """
    entries: dict[Any, ImageBoxes] = {}

    def entry(name: Any) -> ImageBoxes:
        return entries.setdefault(key_of(name), ImageBoxes(key_of(name)))

    try:
        names: dict[Any, Any] = {}
        if isinstance(content, dict) and 'annotations' in content:
            names = {i['id']: i['file_name'] for i in content['images']}
            for number, name in names.items():
                entry(name).id = number
            content = [dict(row, image_id=names[row['image_id']])
                       for row in content['annotations']
                       if not row.get('iscrowd') and row.get('bbox')]
        if isinstance(content, dict):
            content = [dict(image_id=name, bbox=box[:4], score=(*box, 1)[4])
                       for name, boxes in content.items() for box in boxes]
        for row in content:
            x, y, width, height = map(float, row['bbox'])
            box = [x, y, width, height, float(row.get('score', 1))]
            entry(row['image_id']).rows.append((box, category_of(row)))
    except (TypeError, KeyError, ValueError, IndexError,
            AttributeError) as error:
        raise ValueError(f'boxes are {FORMATS}; this file is none of them '
                         f'({type(error).__name__}: {error})') from None
    return entries


def group_of(path: Path) -> str:
    """Return a key that images share if they may match the same entry."""
    return str(int(path.stem)) if path.stem.isdigit() else path.stem


class Match(NamedTuple):
    """The entry that matches an image best, or several that match equally.

    Attributes:
        score: Number of equal trailing parts of both paths, whether they are
            all parts of the entry, whether the file extension is among them.
    """
    score: tuple[int, bool, bool]
    entries: list[ImageBoxes]


class Matcher:
    """Find the entry of each image: the one with the longest common path end.

    A base name alone is enough only if it is unique among the entries and
    among the images. Frames of a video are named ``clip.mp4#0``,
    ``clip.mp4#1`` and so on.

    Args:
        entries: Entries by their key.
    """

    def __init__(self, entries: dict[Any, ImageBoxes]):
        self.entries = entries
        # Entries by each end of their path; two are enough to detect a tie.
        self.ends: dict[Parts, list[ImageBoxes]] = defaultdict(list)
        for key, entry in entries.items():
            if isinstance(key, tuple):
                for start in range(len(key)):
                    if len(self.ends[key[start:]]) < 2:
                        self.ends[key[start:]].append(entry)
        self.images: dict[str, dict[str, Source]] = defaultdict(dict)
        self.complete: dict[str, set[int]] = defaultdict(set)
        self.claims: dict[Any, dict[str, tuple]] = defaultdict(dict)

    def best(self, source: Source, index: int) -> Match | None:
        """Return the entries that match a source best, ignoring others."""
        path = Path(os.path.abspath(source.path))
        number = f'#{index}' if source.is_clip else ''
        found = [self.deepest(path.parts[1:-1], name + number, exact)
                 for name, exact in ((path.name, True), (path.stem, False))]
        matches = [match for match in found if match]
        if matches:
            return max(matches, key=lambda match: match.score)
        if path.stem.isdigit() and not number:
            entry = self.entries.get(int(path.stem))
            return Match((1, False, False), [entry]) if entry else None
        return None

    def deepest(self, folders: Parts, name: str,
                exact: bool) -> Match | None:
        """Return the entries that share the longest path end with an image."""
        end: Parts = (name, )
        if end not in self.ends:
            return None
        for folder in reversed(folders):
            if (folder, *end) not in self.ends:
                break
            end = (folder, *end)
        whole = self.entries.get(end)
        return Match((len(end), whole is not None, exact),
                     [whole] if whole else self.ends[end])

    def add(self, sources: Iterable[Source]):
        """Register images before the boxes of the first one are requested."""
        for source in sources:
            path = os.path.abspath(source.path)
            stem = group_of(Path(path))
            if path not in self.images[stem]:
                self.images[stem][path] = source
                for index in self.complete[stem]:
                    self.claim(source, index)

    def claim(self, source: Source, index: int):
        match = self.best(source, index)
        if match and len(match.entries) == 1:
            claims = self.claims[(match.entries[0].key, index)]
            claims[os.path.abspath(source.path)] = match.score

    def find(self, frame: Frame) -> tuple[ImageBoxes | None, str]:
        """Return the entry of a frame, or the reason why there is none.

        The reason is empty if no entry has the name of the image.
        """
        source, index = frame.source, frame.index
        self.add([source])
        path = os.path.abspath(source.path)
        stem = group_of(Path(path))
        if index not in self.complete[stem]:
            for other in self.images[stem].values():
                self.claim(other, index)
            self.complete[stem].add(index)
        match = self.best(source, index)
        if match is None:
            return None, ''
        if len(match.entries) > 1:
            names = ' and '.join(repr(str(e)) for e in match.entries)
            return None, f'{names} fit equally well'
        entry = match.entries[0]
        claims = self.claims[(entry.key, index)]
        rivals = [other for other, score in claims.items()
                  if other != path and score >= match.score]
        if rivals:
            return None, f'{str(entry)!r} fits {rivals[0]} as well'
        return entry, ''


def image_ids(files: Sequence[str], known: Sequence[Any]) -> list[Any]:
    """Return an id for each file or frame.

    Images of a dataset keep their id; the others get the next free numbers.
    If no id is known and all file names are numbers, as COCO's are, the
    number is the id; otherwise ids count from 1.
    """
    stems = [Path(file).stem for file in files]
    if any(number is not None for number in known):
        taken = {number for number in known if number is not None}
        highest = max((n for n in taken if isinstance(n, int)), default=0)
        fresh = count(highest + 1)
        return [next(fresh) if n is None else n for n in known]
    if all(map(str.isdigit, stems)) and len({*map(int, stems)}) == len(files):
        return list(map(int, stems))
    return list(range(1, len(files) + 1))
