# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check datasets of MMPretrain.

Image folders and label files are listed as MMPretrain lists them. For other
formats, the samples of the dataset are checked.
"""
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from mmengine.config import Config

from ...utils.dataset_leaves import Leaf
from .class_folders import Listing, check_folders, is_listed, read_listing
from .common import (
    Problem,
    Summary,
    check_images,
    guarded,
    skip,
    spread_samples,
    try_build,
)

CLASSES = 'model.head.num_classes'


def head_classes(cfg: Config) -> int | None:
    """Return the number of classes of the model, if it has one."""
    head = cfg.model.get('head')
    return head.get('num_classes') if isinstance(head, Mapping) else None


def check_classes(listing: Listing,
                  classes: int | None) -> Iterator[Problem]:
    """Compare the classes of a listing with those of the head."""
    if classes is None:
        return
    top = max((label for _, label in listing.samples), default=0)
    if listing.is_folders and len(listing.names) != classes:
        yield Problem(
            str(listing.root), f'has {len(listing.names)} class folders, but '
            f'{CLASSES} is {classes}', len(listing.names) > classes)
    if not listing.is_folders and top >= classes:
        path = next(str(path) for path, x in listing.samples if x == top)
        yield Problem(
            str(listing.source), f'has classes up to {top}, but {CLASSES} is '
            f'{classes}, which allows 0 to {classes - 1} (see {path})')


def check_num_classes(cfg: Config) -> Iterator[Problem]:
    """Compare the settings for the number of classes in a config."""
    classes = head_classes(cfg)
    other = (cfg.model.get('data_preprocessor') or {}).get(
        'num_classes', classes)
    if classes is not None and other not in (None, classes):
        mixes = (cfg.model.get('train_cfg') or {}).get('augments')
        yield Problem('model.data_preprocessor.num_classes',
                      f'is {other}, but {CLASSES} is {classes}', bool(mixes))


def name_counts(counts: Mapping[int, int], names: Sequence[str],
                length: int) -> dict[str, int]:
    """Return the count of each class, by name if known."""
    length = max([length, len(names), *(label + 1 for label in counts)])
    named = [*names, *map(str, range(len(names), length))]
    return {name: counts.get(i, 0) for i, name in enumerate(named)}


def count_classes(listing: Listing,
                  classes: int | None) -> dict[str, int]:
    """Return the number of images of each class."""
    counts = Counter(label for _, label in listing.samples if label >= 0)
    length = 0 if listing.is_folders or not counts else classes or 0
    return name_counts(counts, listing.names, length)


def check_listing(listing: Listing, leaf: Leaf, limit: int | None,
                  classes: int | None, workers: int) -> Summary:
    """Read images, and compare their classes with those of the head."""
    indices = spread_samples(len(listing), limit)
    paths = [str(listing.samples[i][0]) for i in indices]
    summary = Summary(
        dict(images=len(paths)), count_classes(listing, classes),
        [*check_classes(listing, classes), *listing.problems],
        warnings=list(listing.warnings))
    check_images(paths, workers, summary, leaf)
    return summary


def classes_of(info: Mapping) -> Iterable[int]:
    """Return the classes of a sample: one, several, or none."""
    label = info.get('gt_label')
    if isinstance(label, (int, np.integer, list, tuple, np.ndarray)):
        return [int(x) for x in np.ravel(label)]
    return []  # several tasks, texts, or unlabelled


def check_samples(dataset: Any, leaf: Leaf, classes: int | None,
                  limit: int | None, workers: int) -> Summary:
    """Check the samples of a dataset of any format."""
    try:
        infos = [
            sample_of(dataset, i) for i in spread_samples(len(dataset), limit)
        ]
    except (AttributeError, NotImplementedError, TypeError) as error:
        return skip(f'{leaf.name} cannot be asked for its samples: {error}')
    paths = [str(info['img_path']) for info in infos
             if isinstance(info.get('img_path'), str)]
    if not paths and not any('img' in info for info in infos):
        return skip(f'{leaf.name} does not name image files')
    counts: Counter = Counter()
    summary = Summary(dict(images=len(infos)))
    if leaf.foreign_loading() or not paths:
        summary.notes.append('image files are not read')
    else:
        check_images(list(dict.fromkeys(paths)), workers, summary, leaf)
    for number, info in enumerate(infos):
        labels = [*classes_of(info)]
        counts.update(label for label in labels if label >= 0)
        wrong = [x for x in labels if not 0 <= x < (classes or x + 1)]
        if classes and wrong:
            summary.problems.append(
                Problem(
                    str(info.get('img_path', f'{leaf.key}, sample {number}')),
                    f'has the label {wrong[0]}, but {CLASSES} is {classes}, '
                    f'which allows 0 to {classes - 1}'))
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    if counts:
        summary.classes = name_counts(counts, list(names), classes or 0)
    return summary


def sample_of(dataset: Any, index: int) -> Mapping:
    """Return a sample of a dataset before its pipeline."""
    if hasattr(dataset, 'get_data_info'):
        return dataset.get_data_info(index)
    return dataset.data_list[index]


def check_leaf(cfg: Config, leaf: Leaf, listing: Listing | None,
               limit: int | None, workers: int) -> Summary:
    """Check one dataset."""
    classes = head_classes(cfg)
    if listing is None:
        dataset, problems = try_build(leaf)
        return Summary(problems=problems) if problems else check_samples(
            dataset, leaf, classes, limit, workers)
    summary = check_listing(listing, leaf, limit, classes, workers)
    if not any(problem.fatal for problem in summary.problems):
        summary.problems += try_build(leaf)[1]
    return summary


def check_leaves(cfg: Config, leaves: Sequence[Leaf], limit: int | None,
                 workers: int) -> dict[str, Summary]:
    """Check datasets, and compare them with the head and each other."""
    listings = {leaf.key: read_listing(leaf.cfg)
                for leaf in leaves if is_listed(leaf)}  # yapf: disable
    result: dict[str, Summary] = {}
    folders: list[Listing] = [x for x in listings.values() if x.is_folders]
    for leaf in leaves:
        listing = listings.get(leaf.key)
        result[leaf.key] = guarded(
            partial(check_leaf, cfg, leaf, listing, limit, workers))
        if listing is not None and folders:
            result[leaf.key].problems[:0] = check_folders(listing, folders[0])
    result[leaves[0].key].problems[:0] = check_num_classes(cfg)
    return result
