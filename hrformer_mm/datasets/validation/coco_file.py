# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check annotation files in COCO format, entry by entry.

The files are read separately, because MMPose silently drops entries that it
cannot train on, and fails at the first malformed entry without naming it. Any
value may be missing or of any type.
"""
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from .common import Problem

VISIBILITIES = (0, 1, 2)
MARGIN = 1  # pixels by which rounding may move labels out of the image
SHOWN = 60  # maximum number of characters of a value in a message


@dataclass(frozen=True)
class Format:
    """Fields of annotations that a dataset reads.

    Attributes:
        names: Names of the keypoints.
        points: Keys whose lists of x, y, visibility are concatenated.
        box: Key of the box; empty if none is read.
        needed: Further keys that the dataset or its metric reads.
        whole_ids: Whether ids must be numbers.
        strict: Whether labels outside of images and invalid visibilities are
            errors; published datasets contain some.
    """
    names: Sequence[str]
    points: Sequence[str] = ('keypoints', )
    box: str = 'bbox'
    needed: Collection[str] = ('id', 'image_id', 'category_id')
    whole_ids: bool = True
    strict: bool = True


@dataclass
class Content:
    """Well-formed entries of a file, and the problems of the file."""
    images: list[Mapping] = field(default_factory=list)
    annotations: list[Mapping] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    has_annotations: bool = True


def read_annotations(path: Path) -> Any:
    """Read a JSON file, with or without a byte-order mark.

    Raises:
        ValueError: If it is not JSON; the message has the position.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8-sig'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not JSON: {error}') from error


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(
        value, bool) and isfinite(value)


def is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def show(value: Any) -> str:
    """Format a value for a message, None as JSON's null."""
    text = 'null' if value is None else repr(value)
    return text if len(text) <= SHOWN else f'{text[:SHOWN]}...'


def entries(content: Mapping, key: str, source: Path,
            problems: list[Problem]) -> list[Mapping]:
    """Return the dicts of a list in a file; report other entries."""
    found = content.get(key, [])
    if not is_list(found):
        problems.append(Problem(str(source), f'has {key} {show(found)}; it '
                                'must be a list'))
        return []
    wrong = [i for i, entry in enumerate(found)
             if not isinstance(entry, Mapping)]
    problems += [Problem(f'{source}, {key}[{i}]', f'is {show(found[i])}; it '
                         'must be an object') for i in wrong]
    return [entry for entry in found if isinstance(entry, Mapping)]


def read_content(content: Mapping, source: Path) -> Content:
    """Return the images and annotations of a file in COCO format."""
    found = Content(has_annotations='annotations' in content)
    found.images = entries(content, 'images', source, found.problems)
    found.annotations = entries(content, 'annotations', source,
                                found.problems)
    found.problems += twice(found.images, 'images', source)
    found.problems += twice(found.annotations, 'annotations', source)
    return found


def hashable_id(entry: Mapping, key: str = 'id') -> Any:
    """Return an id as a hashable value."""
    value = entry.get(key)
    return value if isinstance(value, (str, int, float)) else repr(value)


def twice(items: Sequence[Mapping], what: str,
          source: Path) -> list[Problem]:
    """Find duplicate ids; the last item replaces the others."""
    found = Counter(hashable_id(item) for item in items if 'id' in item)
    return [
        Problem(str(source), f'has {count} {what} of id {number}', False)
        for number, count in found.items() if count > 1
    ]


def id_fault(entry: Mapping, key: str) -> str | None:
    """Return the fault of an id, if any."""
    value = entry.get(key)
    if isinstance(value, str):
        return f'has the {key} {value!r}, a text; it must be a number'
    if not isinstance(value, int) or isinstance(value, bool):
        return f'has the {key} {show(value)}; it must be a whole number'
    return None


def check_image(image: Mapping, source: Path,
                has_size: bool) -> Iterator[Problem]:
    """Find faults in the entry of an image.

    Args:
        image: Entry of the image.
        source: Path of the file.
        has_size: Whether the dataset reads width and height.
    """
    where = f"{source}, image {show(image.get('id'))}"
    wanted = ('id', 'file_name') + ('width', 'height') * has_size
    lacking = [key for key in wanted if key not in image]
    if lacking:
        yield Problem(where, f"lacks {', '.join(lacking)}")
    if 'id' in image and id_fault(image, 'id'):
        yield Problem(where, str(id_fault(image, 'id')))
    if not isinstance(image.get('file_name', ''), str):
        yield Problem(where, f"has the file_name {show(image['file_name'])}; "
                      'it must be a text')
    for key in ('width', 'height'):
        value = image.get(key, 1)
        if not is_number(value) or value <= 0:
            yield Problem(where, f'has the {key} {show(value)}; it must be a '
                          'number of pixels')


def check_category_list(found: Any, source: Path) -> Iterator[Problem]:
    """Find malformed categories of a file; a missing list is none."""
    if found and not is_list(found):
        yield Problem(str(source), f'has the categories {show(found)}; it '
                      'must be a list of objects with id and name')
        return
    for i, entry in enumerate(found or ()):
        where = f'{source}, categories[{i}]'
        if not isinstance(entry, Mapping):
            yield Problem(where, f'is {show(entry)}; it must be an object')
        elif 'id' not in entry:
            yield Problem(where, 'lacks id')
        elif id_fault(entry, 'id'):
            yield Problem(where, str(id_fault(entry, 'id')))


def has_size(image: Mapping) -> bool:
    return all(
        is_number(image.get(key)) and image[key] > 0
        for key in ('width', 'height'))


def is_outside(points: Sequence[Sequence[float]], image: Mapping) -> bool:
    """Whether any point x, y is outside the image, beyond rounding."""
    return has_size(image) and any(
        not (-MARGIN <= x <= image['width'] + MARGIN
             and -MARGIN <= y <= image['height'] + MARGIN)
        for x, y in points)


def size_of(image: Mapping) -> str:
    return f"{image['width']} x {image['height']}"


def check_box(box: Any) -> str | None:
    """Return the fault of a box x, y, width, height, if any."""
    if not is_list(box) or len(box) != 4 or not all(map(is_number, box)):
        return f'has the box {show(box)}; it must be x, y, width, height'
    if min(box[2:]) <= 0:
        return f'has a box without area, {box}'
    return None


def list_fault(key: str, points: Any) -> str | None:
    """Return the type fault of a list of keypoints, if any."""
    if not is_list(points):
        return (f'has the {key} {show(points)}; it must be a list of x, y, '
                'visibility for each keypoint')
    if any(map(is_list, points)):
        return (f'has nested {key} {show(points)}; it must be one flat list '
                'of x, y, visibility for each keypoint')
    wrong = [value for value in points if not is_number(value)]
    if wrong:
        return f'has {show(wrong[0])} among its {key}; all must be numbers'
    return None


def points_of(annotation: Mapping, form: Format) -> list[float] | None:
    """Return all x, y, visibility of an annotation; ``None`` if malformed."""
    if any(key not in annotation or list_fault(key, annotation[key])
           for key in form.points):
        return None
    points: list[float] = [x for key in form.points for x in annotation[key]]
    return points if len(points) == 3 * len(form.names) else None


def check_points(annotation: Mapping, form: Format) -> Iterator[str]:
    """Find wrong types and lengths of the keypoints."""
    faults = [list_fault(key, annotation[key]) for key in form.points]
    yield from (fault for fault in faults if fault)
    if any(faults):
        return
    length = sum(len(annotation[key]) for key in form.points)
    if length != 3 * len(form.names):
        yield (f'has {length} numbers for keypoints; {len(form.names)} '
               f'keypoints have {3 * len(form.names)}')


def check_values(annotation: Mapping, form: Format,
                 image: Mapping) -> Iterator[str]:
    """Find invalid values in well-formed boxes and keypoints."""
    box: Any = annotation.get(form.box)
    if form.box and not check_box(box):
        x, y, w, h = box
        if is_outside([(x, y), (x + w, y + h)], image):
            yield f'has the box {box}, outside its image of {size_of(image)}'
    points = points_of(annotation, form)
    if points is None:
        return
    wrong = sorted({*points[2::3]} - {*VISIBILITIES})
    if wrong and form.points == ('keypoints', ):
        yield (f'has the visibilities {wrong}; 0 is not labelled, 1 hidden, '
               '2 visible')
    for name, x, y, seen in zip(form.names, points[::3], points[1::3],
                                points[2::3]):
        if seen and is_outside([(x, y)], image):
            yield (f'has {name} at ({x}, {y}), outside its image of '
                   f'{size_of(image)}')
    labelled = sum(seen > 0 for seen in points[2::3])
    number = annotation.get('num_keypoints', labelled)
    if form.strict and number != labelled:
        yield (f'says num_keypoints {show(number)}, but {labelled} are '
               'labelled')


def check_annotation(annotation: Mapping, form: Format) -> Iterator[str]:
    """Find missing values and wrong types in an annotation."""
    wanted = [*form.needed, form.box, *form.points]
    lacking = [k for k in dict.fromkeys(wanted) if k and k not in annotation]
    if lacking:
        yield f"lacks {', '.join(lacking)}"
    for key in ('id', 'image_id', 'category_id') if form.whole_ids else ():
        fault = id_fault(annotation, key) if key in annotation else None
        if fault:
            yield fault
    if form.box in annotation:
        fault = check_box(annotation[form.box])
        if fault:
            yield fault
    if not any(key in lacking for key in form.points):
        yield from check_points(annotation, form)
    if annotation.get('iscrowd', 0) not in (0, 1):
        yield (f"has the iscrowd {show(annotation['iscrowd'])}; it must be 0 "
               'or 1')
    area = annotation.get('area', 1)
    points = points_of(annotation, form)
    labelled = points is None or any(seen > 0 for seen in points[2::3])
    if not is_number(area):
        yield f'has the area {show(area)}; it must be a number'
    elif labelled and not area > 0 and 'area' in form.needed:
        yield f'has the area {area}, by which AP divides'


def check_detections(path: Path, images: Collection,
                     chosen: Collection) -> Iterator[Problem]:
    """Find faults in a file of detected boxes for evaluation.

    Detected boxes may extend beyond the image.
    """
    content = read_annotations(path)
    if not is_list(content):
        yield Problem(str(path), f'is {show(content)}; it must be a list of '
                      'boxes')
        return
    for number, found in enumerate(content):
        where = f'{path}, box {number}'
        if not isinstance(found, Mapping):
            yield Problem(where, f'is {show(found)}; it must be an object')
            continue
        lacking = [key for key in ('image_id', 'category_id', 'bbox', 'score')
                   if key not in found]
        image = hashable_id(found, 'image_id')
        if lacking:
            yield Problem(where, f"lacks {', '.join(lacking)}")
        elif image not in images:
            yield Problem(where, f'is of image {image}, which the annotations '
                          'lack')
        elif image in chosen:
            fault = check_box(found['bbox'])
            if fault:
                yield Problem(where, fault)


def by_image(
        found: Content,
        source: Path) -> tuple[dict[Any, list[Mapping]], list[Problem]]:
    """Group annotations by image, and report those of unknown images."""
    known = {hashable_id(image) for image in found.images}
    groups: dict[Any, list[Mapping]] = {}
    problems = []
    for annotation in found.annotations:
        image = hashable_id(annotation, 'image_id')
        groups.setdefault(image, []).append(annotation)
        if image not in known:
            fault = 'lacks image_id' if 'image_id' not in annotation else (
                id_fault(annotation, 'image_id')
                or f"is of image {annotation['image_id']}, which is not in "
                'the list')
            problems.append(
                Problem(
                    f"{source}, annotation {show(annotation.get('id'))}",
                    fault, False))
    return groups, problems
