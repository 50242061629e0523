# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check data sets of MMSegmentation: image files and label maps."""
from dataclasses import dataclass
from functools import partial
from typing import Dict, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from .check import Problem, Size, Summary, map_threads, spread


@dataclass(frozen=True)
class Labels:
    """Values that label maps of a data set may have."""
    classes: int  # in the files, before any are mapped to others
    ignore_index: int
    reduce_zero: bool  # 0 is unlabelled and classes begin at 1

    @property
    def first(self) -> int:
        """The value of the first class."""
        return int(self.reduce_zero)

    def wrong(self, label: ndarray) -> list:
        """Values of a label map that are none of a class."""
        values = np.unique(label)
        known = (values < self.classes + self.first) & (values >= 0)
        return values[~known & (values != self.ignore_index)].tolist()

    def describe(self) -> str:
        return (f'0 to {self.classes - 1 + self.first} and '
                f'{self.ignore_index}')


def labels_of(dataset) -> Labels:
    mapped = dataset.label_map or dataset.metainfo['classes']
    return Labels(
        len(mapped), dataset.ignore_index, dataset.reduce_zero_label)


def read(path: str) -> ndarray:
    """An image file as it is stored, turned as its EXIF tag says.

    Raises:
        OSError: If it is missing, broken or cut off.
    """
    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image))


def try_read(path: str) -> Tuple[Optional[ndarray], Optional[Problem]]:
    """The image, or what is wrong with its file."""
    try:
        return read(path), None
    except FileNotFoundError:
        return None, Problem(path, 'does not exist')
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        # PIL has a SyntaxError for broken PNG
        reason = '' if isinstance(error, UnidentifiedImageError) else (
            f': {error}')
        return None, Problem(path, f'cannot be read as an image{reason}')


def judge_label(path: str, label: ndarray, image: Optional[ndarray],
                labels: Labels) -> Optional[Problem]:
    """What is wrong with a label map, if anything."""
    if label.ndim != 2:
        return Problem(
            path, f'has {label.shape[2]} channels; a label map has one')
    if image is not None and image.shape[:2] != label.shape:
        sizes = ['{1} x {0}'.format(*x.shape) for x in (label, image)]
        return Problem(
            path, f'is {sizes[0]}, its image {sizes[1]} (width x height)')
    wrong = labels.wrong(label)
    if wrong:
        return Problem(
            path, f'has the values {wrong[:5]}; labels are '
            f'{labels.describe()}')
    return None


def check_sample(
        info: Mapping, labels: Labels
) -> Tuple[ndarray, Optional[Size], Sequence[Problem]]:
    """Pixels of each class of one sample, its size, and its problems."""
    pixels: ndarray = np.zeros(labels.classes, np.int64)
    image, fault = try_read(info['img_path'])
    faults = [fault]
    if 'seg_map_path' in info:
        label, fault = try_read(info['seg_map_path'])
        if label is not None:
            fault = judge_label(info['seg_map_path'], label, image, labels)
            if fault is None:
                counts = np.bincount(label.ravel(), minlength=256)
                pixels = counts[labels.first:][:labels.classes]
        faults.append(fault)
    size = None if image is None else (image.shape[1], image.shape[0])
    return pixels, size, [fault for fault in faults if fault is not None]


def classes_from(pixels: ndarray, dataset) -> dict:
    """Pixels by name of class, after classes are mapped to others."""
    names = dataset.metainfo['classes']
    totals = dict.fromkeys(names, 0)
    for old, count in enumerate(pixels.tolist()):
        new = (dataset.label_map or {}).get(old, old)
        if new < len(names):
            totals[names[new]] += count
    return totals


def check_heads(cfg: Config, classes: int) -> Iterator[Problem]:
    """Heads that do not have as many classes as the data set."""
    for key in ('decode_head', 'auxiliary_head'):
        heads = cfg.model.get(key) or ()
        for head in [heads] if isinstance(heads, dict) else heads:
            if head.get('num_classes', classes) != classes:
                yield Problem(
                    f'model.{key}.num_classes',
                    f'is {head["num_classes"]}, but the '
                    f'data set has {classes} classes')


def check_dataset(dataset, indices: Sequence[int], workers: int) -> Summary:
    """Read images and labels, and compare them with the classes."""
    labels = labels_of(dataset)
    infos = [dataset.get_data_info(i) for i in indices]
    summary = Summary(
        dict(
            images=len(infos),
            labels=sum('seg_map_path' in info for info in infos)))
    if not infos:
        summary.problems.append(
            Problem(dataset.data_prefix['img_path'],
                    f'holds no images that end in {dataset.img_suffix}'))
    total = np.zeros(labels.classes, np.int64)
    check = partial(check_sample, labels=labels)
    for pixels, size, problems in map_threads(check, infos, workers):
        total += pixels
        summary.sizes += [size] * (size is not None)
        summary.problems += problems
    summary.classes = classes_from(total, dataset)
    return summary


def check_loaders(cfg: Config, loaders: Sequence[str], limit: Optional[int],
                  workers: int) -> Dict[str, Summary]:
    """Check the data sets of loaders, and the heads against them."""
    result = {}
    for loader in loaders:
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset = DATASETS.build(  # serialising fails on an empty one
                dict(cfg[loader].dataset, pipeline=[], serialize_data=False))
        summary = check_dataset(dataset, spread(len(dataset), limit), workers)
        summary.problems[:0] = check_heads(cfg, len(summary.classes))
        result[loader] = summary
    return result
