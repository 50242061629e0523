# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check boxes and masks in COCO format.

MMDetection silently drops boxes without area or outside of their image, and
categories that the config does not name.
"""
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from numpy import ndarray

from ...utils.dataset_leaves import Leaf
from ...visualization.drawing import draw_instances, make_palette
from .coco_file import (
    Format,
    by_image,
    check_annotation,
    check_category_list,
    check_image,
    check_values,
    has_size,
    hashable_id,
    is_list,
    is_number,
    read_annotations,
    read_content,
    show,
)
from .common import (
    Problem,
    Summary,
    check_images,
    guarded,
    skip,
    spread_samples,
    try_build,
)

FORMAT = Format((), (), needed=('id', 'image_id', 'category_id', 'area'),
                strict=False)  # yapf: disable


def objects(found: Any) -> list[Mapping]:
    """Return the well-formed entries of a list that may be none."""
    return [entry for entry in found if isinstance(entry, Mapping)
            ] if is_list(found) else []  # yapf: disable


def polygons(mask: Any) -> list[ndarray]:
    """Return the polygons [N, 2] of a mask; none for run lengths."""
    return [np.reshape(p, (-1, 2)) for p in mask] if is_list(mask) else []


def mask_fault(annotation: Mapping) -> str | None:
    """Return the fault of a mask, if any."""
    mask = annotation.get('segmentation')
    if isinstance(mask, Mapping):
        lacking = {'counts', 'size'} - mask.keys()
        return f'has a mask without {", ".join(lacking)}' if lacking else None
    if not is_list(mask) or not mask:
        return 'has no mask (segmentation), which this config trains on'
    for polygon in mask:
        if not is_list(polygon) or len(polygon) < 6 or len(polygon) % 2 or (
                not all(map(is_number, polygon))):
            return (f'has the polygon {show(polygon)}; it must be x, y of at '
                    'least three points in one flat list')
    return None


def numbers_of_classes(part: Any, key: str = 'model') -> Iterator[tuple]:
    """Yield the key and value of each ``num_classes`` in a model.

    Region proposals have one class, and semantic heads classes of their own.
    """
    items = part.items() if isinstance(part, Mapping) else enumerate(
        part) if isinstance(part, (list, tuple)) else ()
    for name, value in items:
        if name == 'num_classes':
            yield f'{key}.{name}', value
        elif 'semantic' not in str(name) and name != 'rpn_head':
            yield from numbers_of_classes(value, f'{key}.{name}')


def check_heads(cfg: Config, names: Sequence[str]) -> Iterator[Problem]:
    """Compare the classes of all heads with those of the dataset."""
    for key, value in numbers_of_classes(cfg.model):
        if value != len(names):
            yield Problem(key, f'is {value}, but the dataset has {len(names)} '
                          'classes')


def check_categories(content: Mapping, names: Sequence[str],
                     source: Path) -> Iterator[Problem]:
    """Compare the categories of a file with the classes of the dataset.

    MMDetection numbers those that it finds, in the order of the file.
    """
    found = [c.get('name') for c in objects(content.get('categories'))]
    lacking = [name for name in names if name not in found]
    if lacking:
        yield Problem(
            str(source), f'has no categories {lacking[:9]}; it has '
            f'{found[:9]}: set metainfo.classes of the dataset')
    elif [name for name in found if name in names] != list(names):
        yield Problem(
            str(source), 'has its categories in another order than '
            'metainfo.classes, so predictions get wrong names')


class DetCheck:
    """Check of one dataset.

    Args:
        leaf: Config of the dataset.
        content: Content of its file.
        source: Path of the file.
        dataset: Dataset, or ``None`` if it cannot be built.
    """

    def __init__(self, leaf: Leaf, content: Mapping, source: Path,
                 dataset: Any):
        self.leaf, self.source, self.dataset = leaf, source, dataset
        self.found = read_content(content, source)
        self.reads_masks = any(
            step.get('with_mask') for step in leaf.steps())
        self.categories = content.get('categories')
        self.names = {hashable_id(c): hashable_id(c, 'name')
                      for c in objects(self.categories)}  # yapf: disable
        classes = dataset.metainfo['classes'] if dataset else ()
        self.summary = Summary(classes=dict.fromkeys(classes, 0))
        self.folder = dataset.data_prefix.get('img') or '' if dataset else (
            os.path.join(leaf.cfg.get('data_root') or '',
                         (leaf.cfg.get('data_prefix') or {}).get('img', '')))

    def check_annotation(self, annotation: Mapping, image: Mapping):
        where = f"{self.source}, annotation {annotation.get('id')}"
        faults = [*check_annotation(annotation, FORMAT),
                  *check_values(annotation, FORMAT, image)]  # yapf: disable
        if self.reads_masks and mask_fault(annotation):
            faults.append(str(mask_fault(annotation)))
        self.summary.problems += [
            Problem(where, fault, self.dataset is None) for fault in faults
        ]

    def check_annotations(self, chosen: Sequence[Mapping]):
        groups, unknown = by_image(self.found, self.source)
        self.summary.problems += unknown
        counts = dict.fromkeys(('instances', 'crowds', 'instances of other '
                                'categories', 'images without instances'), 0)
        for image in chosen:
            is_empty = True
            for annotation in groups.get(hashable_id(image), ()):
                self.check_annotation(annotation, image)
                name = self.names.get(hashable_id(annotation, 'category_id'))
                if name not in self.summary.classes:
                    counts['instances of other categories'] += 1
                elif annotation.get('iscrowd'):
                    counts['crowds'] += 1
                else:
                    is_empty = False
                    counts['instances'] += 1
                    self.summary.classes[name] += 1
            counts['images without instances'] += is_empty
        if self.dataset is None:  # which classes count is unknown
            counts = {}
        elif self.found.has_annotations and not counts['instances']:
            self.summary.problems.append(
                Problem(str(self.source), 'has no instance to train on'))
        self.summary.counts = {'images': len(chosen), **counts}

    def check_images(self, chosen: Sequence[Mapping], workers: int):
        """Read the images, and compare their sizes with the file."""
        named = [i for i in chosen if isinstance(i.get('file_name'), str)]
        paths = [os.path.join(self.folder, i['file_name']) for i in named]
        sizes = check_images(paths, workers, self.summary, self.leaf)
        for image, path, size in zip(named, paths, sizes):
            written = (image.get('width'), image.get('height'))
            if size and has_size(image) and size != written:
                self.summary.problems.append(
                    Problem(path, f'is {size[0]} x {size[1]}, its annotation '
                            f'says {written[0]} x {written[1]} (width x '
                            'height)', False))

    def run(self, limit: int | None, workers: int) -> Summary:
        self.summary.problems += self.found.problems
        self.summary.problems += check_category_list(self.categories,
                                                     self.source)
        images = self.found.images
        chosen = [images[i] for i in spread_samples(len(images), limit)]
        entries = images if self.dataset is None else chosen
        for image in entries:
            self.summary.problems += check_image(image, self.source, True)
        self.check_annotations(entries)
        self.check_images(chosen, workers)
        return self.summary


def reads_coco(kind: Any) -> bool:
    """Whether a dataset reads files as MMDetection's ``CocoDataset`` does."""
    from mmdet.datasets import CocoDataset
    return all(getattr(kind, name, None) is getattr(CocoDataset, name)
               for name in ('load_data_list', 'parse_data_info'))


def check_samples(dataset: Any, leaf: Leaf, limit: int | None,
                  workers: int) -> Summary:
    """Check the samples of a dataset of any format."""
    infos = [
        dataset.get_data_info(i) for i in spread_samples(len(dataset), limit)
    ]
    if not infos or 'img_path' not in infos[0]:
        return skip(f'{leaf.name} does not name image files')
    names = dataset.metainfo.get('classes') or ()
    summary = Summary(dict(images=len(infos), instances=0),
                      dict.fromkeys(names, 0))  # yapf: disable
    for info in infos:
        for instance in info.get('instances') or ():
            summary.counts['instances'] += 1
            if 0 <= instance.get('bbox_label', -1) < len(names):
                summary.classes[names[instance['bbox_label']]] += 1
    check_images([info['img_path'] for info in infos], workers, summary, leaf)
    return summary


def check_coco_file(leaf: Leaf, dataset: Any, limit: int | None,
               workers: int) -> Summary:
    """Check a dataset by its file in COCO format."""
    source = Path(leaf.cfg.get('data_root') or '',
                  str(leaf.cfg.get('ann_file') or ''))
    try:
        content = read_annotations(source)
    except ValueError as error:
        return Summary(problems=[
            Problem(str(source), str(error).removeprefix(f'{source} '))])
    if not isinstance(content, Mapping):
        return Summary(problems=[
            Problem(str(source), f'is {show(content)}; it must be an object '
                    'with images, annotations and categories')])
    summary = DetCheck(leaf, content, source, dataset).run(limit, workers)
    if dataset is not None:
        summary.problems[:0] = check_categories(
            content, dataset.metainfo['classes'], source)
    return summary


def check_leaf(cfg: Config, leaf: Leaf, limit: int | None,
               workers: int) -> Summary:
    """Check one dataset, and compare the heads with it."""
    dataset, problems = try_build(leaf)
    if reads_coco(leaf.kind):
        summary = check_coco_file(leaf, dataset, limit, workers)
        summary.problems += problems  # last: the file may show the reason
    elif dataset is None:
        return Summary(problems=problems)
    else:
        summary = check_samples(dataset, leaf, limit, workers)
    names = dataset and dataset.metainfo.get('classes')
    if names and not summary.skipped:
        summary.problems[:0] = check_heads(cfg, names)
    return summary


def check_leaves(cfg: Config, leaves: Sequence[Leaf], limit: int | None,
                 workers: int) -> dict[str, Summary]:
    """Check datasets, and compare the heads with them."""
    return {
        leaf.key: guarded(partial(check_leaf, cfg, leaf, limit, workers))
        for leaf in leaves
    }


def mask_of(instance: Mapping, size: Sequence[int], zoom: float) -> ndarray:
    """Return the mask [H, W] of polygons; empty for run lengths."""
    mask = np.zeros(tuple(size), np.uint8)
    for polygon in polygons(instance.get('mask')):
        cv2.fillPoly(mask, [np.round(zoom * polygon).astype(np.int32)], 1)
    return mask.astype(bool)


def draw_labels(image: ndarray, instances: Sequence[Mapping],
                zoom: float) -> ndarray:
    """Draw the labelled boxes and masks of an image that was enlarged."""
    kinds: set[int] = {i['bbox_label'] for i in instances}
    colors = make_palette(max(kinds, default=0) + 1)
    return draw_instances(
        image, [zoom * np.asarray(i['bbox']) for i in instances],
        [mask_of(i, image.shape[:2], zoom) for i in instances],
        [colors[i['bbox_label']] for i in instances])
