# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check a file of keypoints in COCO format, entry by entry, and its images."""
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...utils.dataset_leaves import Leaf
from .coco_file import (
    Content,
    Format,
    by_image,
    check_annotation,
    check_category_list,
    check_detections,
    check_image,
    check_values,
    has_size,
    hashable_id,
    points_of,
    read_content,
    show,
)
from .common import Problem, Summary, check_images, spread_samples

LEFT_OUT = 'instances ignored (crowds, or without keypoints)'


@dataclass(frozen=True)
class Asked:
    """Requirements of the metrics of a config.

    Attributes:
        keys: Required keys of an annotation.
        sigmas: Whether sigmas are required.
        categories: Whether categories are required.
    """
    keys: tuple[str, ...] = ()
    sigmas: bool = False
    categories: bool = False


def is_trained_on(annotation: Mapping, form: Format) -> bool:
    points = points_of(annotation, form) or ()
    number = annotation.get('num_keypoints',
                            sum(seen > 0 for seen in points[2::3]))
    return bool(number and not annotation.get('iscrowd'))


def images_of(leaf: Leaf, dataset: Any) -> str:
    """Return the folder of the images, as the dataset joins it."""
    if dataset is not None:
        return dataset.data_prefix.get('img') or ''
    prefix = leaf.cfg.get('data_prefix') or {}
    return os.path.join(leaf.cfg.get('data_root') or '',
                        prefix.get('img') or '')


def used_paths(dataset: Any) -> set[str] | None:
    """Return the image paths of the samples of a dataset, if it was built."""
    infos = getattr(dataset, 'data_list', None)
    if not infos or any('img_path' not in info for info in infos):
        return None
    return {info['img_path'] for info in infos}


def find_unreadable(leaf: Leaf, found: Content,
                    source: Path) -> Iterator[Problem]:
    """Find annotations that a dataset cannot read, by parsing each."""
    try:
        dataset = leaf.build(lazy_init=True)
    except Exception:  # not caused by an annotation
        return
    images = {hashable_id(image): image for image in found.images}
    for annotation in found.annotations:
        image = images.get(hashable_id(annotation, 'image_id'), {})
        raw = dict(raw_ann_info=annotation, raw_img_info=dict(
            image, img_id=image.get('id'), img_path=''))  # yapf: disable
        try:
            dataset.parse_data_info(raw)
        except Exception as error:  # the same as when loading the file
            words = 'lacks' if isinstance(error, KeyError) else (
                f'cannot be read by {leaf.name}: {type(error).__name__}:')
            yield Problem(f"{source}, annotation {annotation.get('id')}",
                          f'{words} {error}')


class CocoCheck:
    """Check of a dataset whose file is in COCO format.

    Args:
        leaf: Config of the dataset.
        content: Content of its file.
        source: Path of the file.
        dataset: Dataset, or ``None`` if it cannot be built.
        form: Fields of annotations that the dataset reads.
        asked: Requirements of the metrics.
    """

    def __init__(self, leaf: Leaf, content: Mapping, source: Path,
                 dataset: Any, form: Format, asked: Asked):
        self.leaf, self.source, self.dataset = leaf, source, dataset
        self.form, self.asked = form, asked
        self.content = content
        self.found = read_content(content, source)
        self.folder = images_of(leaf, dataset)
        self.summary = Summary(
            classes=dict.fromkeys(form.names, 0), kind='keypoints')
        self.evaluates = leaf.loader != 'train_dataloader'
        self.categories: list = []

    def path(self, image: Mapping) -> str:
        return os.path.join(self.folder, str(image.get('file_name')))

    def add(self, where: str, fault: str, fatal: bool = False,
            certain: bool = False):
        """Record a fault; for published datasets that load, as a warning."""
        problem = Problem(where, fault, fatal)
        if certain or self.form.strict or self.dataset is None:
            self.summary.problems.append(problem)
        else:
            self.summary.warnings.append(problem)

    def check_category(self, where: str, number: Any):
        """Find categories that evaluation, but not training, ignores."""
        if not self.categories or not isinstance(number, int) or (
                number in self.categories):
            return
        fault = (f'has the category_id {number}, which is not among the '
                 f'categories {show(self.categories)}')
        if self.evaluates and self.asked.categories:
            self.add(where, fault)
        else:
            self.summary.warnings.append(Problem(where, fault, False))

    def check_annotation(self, annotation: Mapping, image: Mapping):
        where = f"{self.source}, annotation {annotation.get('id')}"
        if annotation.get('face_valid') is False and (
                'face_kpts' in self.form.points[:1]):
            return  # the dataset ignores it
        form = replace(self.form, needed=(
            *self.form.needed, *self.asked.keys))  # yapf: disable
        for fault in check_annotation(annotation, form):
            lacks = fault.startswith('lacks') and any(
                key not in annotation for key in self.asked.keys)
            fatal = self.dataset is None or lacks and self.evaluates
            self.add(where, fault, fatal, lacks)
        for fault in check_values(annotation, self.form, image):
            self.add(where, fault)
        self.check_category(where, annotation.get('category_id'))
        points = points_of(annotation, self.form) or ()
        for name, seen in zip(self.form.names, points[2::3]):
            self.summary.classes[name] += seen > 0

    def check_annotations(self, chosen: Sequence[Mapping]):
        groups, unknown = by_image(self.found, self.source)
        self.summary.problems += unknown
        trained = left_out = 0
        for image in chosen:
            for annotation in groups.get(hashable_id(image), ()):
                self.check_annotation(annotation, image)
                is_trained = is_trained_on(annotation, self.form)
                trained, left_out = (trained + is_trained,
                                     left_out + (not is_trained))
        if self.found.has_annotations and not trained:
            self.summary.problems.append(
                Problem(str(self.source), 'has no instance with keypoints '
                        'that is not a crowd'))
        self.summary.counts = {'images': len(chosen), 'instances': trained,
                               LEFT_OUT: left_out}  # yapf: disable

    def check_images(self, chosen: Sequence[Mapping], workers: int):
        """Read the images, and compare their sizes with the annotations."""
        named = [i for i in chosen if isinstance(i.get('file_name'), str)]
        used = used_paths(self.dataset)
        if used and self.found.has_annotations:
            named = [image for image in named if self.path(image) in used]
        paths = [self.path(image) for image in named]
        if self.leaf.foreign_loading():
            self.summary.notes.append('image files are not read')
            return
        sizes = check_images(paths, workers, self.summary, self.leaf)
        for image, path, size in zip(named, paths, sizes):
            written = (image.get('width'), image.get('height'))
            if size and has_size(image) and size != written:
                self.add(path, f'is {size[0]} x {size[1]}, its annotation '
                         f'says {written[0]} x {written[1]} (width x height)')

    def check_categories(self):
        boxes = self.leaf.cfg.get('bbox_file')
        asks = self.evaluates and (self.asked.categories or boxes)
        found = self.content.get('categories')
        faults = [*check_category_list(found, self.source)]
        for problem in faults:
            self.add(problem.path, problem.what, self.dataset is None)
        if found and not faults:
            self.categories = [category['id'] for category in found]
        if asks and not found:
            self.add(str(self.source), 'has no categories, which evaluation '
                     "asks for: add categories=[{'id': 1, 'name': ...}]",
                     True, True)

    def run(self, limit: int | None, workers: int) -> Summary:
        self.summary.problems += self.found.problems
        self.check_categories()
        images = self.found.images
        chosen = [images[i] for i in spread_samples(len(images), limit)]
        # If it cannot be loaded, the reason may be anywhere.
        entries = images if self.dataset is None else chosen
        for image in entries:
            for problem in check_image(image, self.source,
                                       self.dataset is None):
                self.add(problem.path, problem.what, problem.fatal)
        self.check_annotations(entries)
        if self.leaf.cfg.get('bbox_file'):
            self.summary.problems += check_detections(
                Path(self.leaf.cfg['bbox_file']),
                {hashable_id(image) for image in self.found.images},
                {hashable_id(image) for image in chosen})
        self.check_images(chosen, workers)
        self.summary.counts['images'] = len(chosen)
        return self.summary
