# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check datasets of MMSegmentation: image files and label maps."""
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from ...utils.dataset_leaves import Leaf
from .common import (
    Problem,
    Size,
    Summary,
    guarded,
    map_threads,
    skip,
    spread_samples,
    try_build,
)
from .image_types import other_images

PAD = 255  # default value with which MMSegmentation pads labels
IGNORED = .5  # share of ignored pixels that causes a warning
FIX = ('give each pixel the number of its class, or the ignored value '
       'where it has none')


@dataclass(frozen=True)
class LabelValues:
    """Valid values of the label maps of a dataset."""
    classes: int  # number in the files, before label_map is applied
    ignore_index: int
    reduce_zero: bool  # 0 is unlabelled and classes begin at 1
    unused: frozenset = frozenset()  # classes that label_map removes

    @property
    def first(self) -> int:
        """Return the value of the first class."""
        return int(self.reduce_zero)

    @property
    def ignored(self) -> tuple[int, ...]:
        """Return the values in the files that training ignores."""
        unused = [value + self.first for value in self.unused]
        zero = [0] * self.reduce_zero
        return (*zero, *unused, PAD, self.ignore_index)

    def wrong(self, label: ndarray) -> list:
        """Return the invalid values of a label map."""
        values = np.unique(label)
        known = (values < self.classes + self.first) & (values >= 0)
        allowed = known | np.isin(values, (PAD, self.ignore_index))
        return values[~allowed].tolist()

    def describe(self) -> str:
        return (f'0 to {self.classes - 1 + self.first} and '
                f'{self.ignore_index}')


class Counts(NamedTuple):
    """Numbers of pixels of a label map: by class, ignored, and all."""
    classes: ndarray
    ignored: int = 0
    total: int = 0


def heads_of(cfg: Config) -> Iterator[tuple[str, Mapping]]:
    """Yield key and config of each head of the model."""
    model = cfg.model.get('segmentor') or cfg.model
    for key in ('decode_head', 'auxiliary_head'):
        heads = model.get(key) or ()
        for head in [heads] if isinstance(heads, Mapping) else heads:
            yield f'model.{key}', head


def labels_of(dataset: Any, cfg: Config) -> LabelValues:
    """Return the valid label values for a dataset and a model."""
    mapped = getattr(dataset, 'label_map', None) or {}
    classes = dataset.metainfo['classes']
    ignored = [head.get('ignore_index') for _, head in heads_of(cfg)]
    own = getattr(dataset, 'ignore_index', PAD)
    return LabelValues(
        len(mapped or classes),
        next((i for i in ignored if i not in (None, PAD)), own),
        getattr(dataset, 'reduce_zero_label', False),
        frozenset(old for old, new in mapped.items() if new >= len(classes)))


def read(path: str) -> ndarray:
    """Read an image file unchanged, except for its EXIF orientation.

    Raises:
        OSError: If it is missing, damaged or truncated.
    """
    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image))


def try_read(path: str) -> tuple[ndarray | None, Problem | None]:
    """Return the image, or the problem of its file."""
    try:
        return read(path), None
    except FileNotFoundError:
        return None, Problem(path, 'does not exist')
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        # PIL raises SyntaxError for damaged PNG files.
        reason = '' if isinstance(error, UnidentifiedImageError) else (
            f': {error}')
        return None, Problem(path, f'cannot be read as an image{reason}')


def judge_label(path: str, label: ndarray, image: ndarray | None,
                labels: LabelValues) -> Problem | None:
    """Return the problem of a label map, if any."""
    if label.ndim != 2:
        colors = label[..., :3]
        same = (colors == colors[..., :1]).all()
        fix = 'save one of its channels, which are equal' if same else (
            'convert its colours to the numbers of the classes')
        return Problem(
            path, f'has {label.shape[2]} channels; a label map has one: {fix}')
    if image is not None and image.shape[:2] != label.shape:
        sizes = ['{1} x {0}'.format(*x.shape) for x in (label, image)]
        return Problem(
            path, f'is {sizes[0]}, its image {sizes[1]} (width x height)')
    if label.dtype.kind == 'f' and not (label == label.round()).all():
        return Problem(path, 'has fractions; labels are whole numbers')
    wrong = labels.wrong(label)
    if wrong:
        return Problem(
            path, f'has the values {wrong[:5]}; labels are '
            f'{labels.describe()}: {FIX}')
    return None


def count_pixels(label: ndarray, labels: LabelValues) -> Counts:
    counts = np.bincount(label.ravel().astype(np.int64), minlength=256)
    ignored = counts[[v for v in {*labels.ignored} if v < 256]].sum()
    pixels = counts[labels.first:][:labels.classes].copy()
    if 0 <= labels.ignore_index - labels.first < labels.classes:
        pixels[labels.ignore_index - labels.first] = 0
    return Counts(pixels, int(ignored), label.size)


def check_sample(
        info: Mapping, labels: LabelValues,
        has_labels: bool) -> tuple[Counts, Size | None, Sequence[Problem]]:
    """Return the pixel counts of a sample, its size, and its problems."""
    pixels = Counts(np.zeros(labels.classes, np.int64))
    image, fault = try_read(info['img_path'])
    faults = [fault]
    if has_labels and info.get('seg_map_path'):
        label, fault = try_read(info['seg_map_path'])
        if label is not None:
            fault = judge_label(info['seg_map_path'], label, image, labels)
            if fault is None:
                pixels = count_pixels(label, labels)
        faults.append(fault)
    size = None if image is None else (image.shape[1], image.shape[0])
    return pixels, size, [fault for fault in faults if fault is not None]


def classes_from(pixels: ndarray, dataset: Any) -> dict:
    """Return the pixels of each class by name, after label_map is applied."""
    names = dataset.metainfo['classes']
    totals = dict.fromkeys(names, 0)
    mapped = getattr(dataset, 'label_map', None) or {}
    for old, count in enumerate(pixels.tolist()):
        new = mapped.get(old, old)
        if new < len(names):
            totals[names[new]] += count
    return totals


def check_heads(cfg: Config, classes: int) -> Iterator[Problem]:
    """Find heads whose number of classes differs from the dataset."""
    for key, head in heads_of(cfg):
        if head.get('num_classes', classes) != classes:
            yield Problem(
                f'{key}.num_classes', f'is {head["num_classes"]}, but '
                f'the dataset has {classes} classes',
                head['num_classes'] < classes)


def check_padding(cfg: Config) -> Iterator[Problem]:
    """Find padding values that heads would train on as a class.

    Our own head also ignores MMSegmentation's padding value, 255.
    """
    processor = cfg.model.get('data_preprocessor') or {}
    pad = processor.get('seg_pad_val', PAD)
    if not (processor.get('size') or processor.get('size_divisor')):
        return
    for key, head in heads_of(cfg):
        ignored = head.get('ignore_index', PAD)
        own = pad == PAD and 'OCRHead' in str(head.get('type'))
        if pad != ignored and not own:
            yield Problem(
                'model.data_preprocessor.seg_pad_val', f'is {pad}, but '
                f'{key}.ignore_index is {ignored}, so padding is trained on '
                f'as a class: set both to {ignored}', pad >= head.get(
                    'num_classes', 0))


def check_metric(cfg: Config, loader: str) -> Iterator[Problem]:
    """Find metrics that count pixels that training ignores."""
    key = loader.replace('dataloader', 'evaluator')
    found = cfg.get(key) or ()
    heads = [head.get('ignore_index', PAD) for _, head in heads_of(cfg)]
    for metric in [found] if isinstance(found, Mapping) else found:
        value = metric.get('ignore_index', PAD)
        if heads and 'IoUMetric' in str(metric.get('type')) and (
                value != heads[0]):
            yield Problem(
                f'{key}.ignore_index', f'is {value}, but '
                f'model.decode_head.ignore_index is {heads[0]}, so evaluation '
                f'counts pixels that training ignores: set it to {heads[0]}')


def check_ignored(summary: Summary, where: str, ignored: int, total: int,
                  index: int):
    """Report the share of ignored pixels, and warn if it is suspicious."""
    if not total:
        return
    share = ignored / total
    summary.notes.append(f'ignored pixels: {100 * share:.1f} %')
    present = len(summary.classes) - len(summary.absent)
    if ignored and present <= 1 < len(summary.classes):
        summary.warnings.append(
            Problem(
                where, f'have no other classes than '
                f"{[n for n, c in summary.classes.items() if c]}, and "
                f'{100 * share:.1f} % of the pixels are ignored: training '
                'needs at least two classes. ' +
                ('Convert masks of 0 and 255 to 0 and 1' if index == PAD else
                 f'ignore_index is {index}'), False))
    elif share >= IGNORED:
        summary.warnings.append(
            Problem(where, f'have {100 * share:.1f} % ignored pixels; is this '
                    'intended?', False))


def find_other_images(dataset: Any, leaf: Leaf) -> list[Problem]:
    """Find images without the suffix that a dataset reads."""
    prefix = getattr(dataset, 'data_prefix', {})
    folder = prefix.get('img_path')
    suffix: Any = getattr(dataset, 'img_suffix', None)
    if not (folder and suffix) or bool(getattr(dataset, 'ann_file', None)):
        return []
    ends = suffix if isinstance(suffix, tuple) else (suffix, )
    if Path(folder) == Path(prefix.get('seg_map_path') or '/'):
        ends += (dataset.seg_map_suffix, )
    return other_images(
        folder, ends, f'only those that end in {suffix} are read: convert '
        'them, or concatenate a second dataset with another img_suffix')


def check_dataset(dataset: Any, leaf: Leaf, cfg: Config,
                  limit: int | None, workers: int) -> Summary:
    """Read images and labels, and compare the labels with the classes."""
    if 'classes' not in (getattr(dataset, 'metainfo', None) or {}):
        return skip(f'{leaf.name} has no classes')
    infos = [
        dataset.get_data_info(i) for i in spread_samples(len(dataset), limit)
    ]
    if infos and 'img_path' not in infos[0]:
        return skip(f'{leaf.name} does not name image files')
    loading = leaf.foreign_loading()
    plain = {*leaf.transforms()} - {*loading}
    if loading and 'LoadImageFromFile' not in plain:
        return skip(f'files are read by {", ".join(loading)}')
    labels = labels_of(dataset, cfg)
    has_labels = not loading or 'LoadAnnotations' in plain
    counted = sum(bool(info.get('seg_map_path')) for info in infos)
    summary = Summary(dict(images=len(infos), labels=counted))
    prefix = getattr(dataset, 'data_prefix', None) or {}
    where = str(prefix.get('seg_map_path') or leaf.key)
    if not len(dataset):
        summary.problems.append(
            Problem(str(prefix.get('img_path')), 'holds no images that end '
                    f"in {getattr(dataset, 'img_suffix', '')}"))
    total, ignored, pixels = np.zeros(labels.classes, np.int64), 0, 0
    check = partial(check_sample, labels=labels, has_labels=has_labels)
    for counts, size, problems in map_threads(check, infos, workers):
        total += counts.classes
        ignored, pixels = ignored + counts.ignored, pixels + counts.total
        summary.sizes += [size] * (size is not None)
        summary.problems += problems
    # Unknown unless there is a label map without a problem.
    summary.classes = (
        classes_from(total, dataset) if pixels and has_labels else {})
    if not has_labels:
        summary.notes.append(f'labels are read by {", ".join(loading)} and '
                             'not checked')
    check_ignored(summary, where, ignored, pixels, labels.ignore_index)
    summary.warnings += find_other_images(dataset, leaf)
    return summary


def soften(summary: Summary, leaf: Leaf):
    """Make problems of labels warnings if a transform may change labels."""
    foreign = leaf.foreign_transforms()
    if not foreign:
        return
    hard = [p for p in summary.problems
            if 'has the values' not in p.what and 'channels' not in p.what]
    summary.warnings += [
        replace(p, what=f'{p.what} (unless {", ".join(foreign)} does so)',
                fatal=False)
        for p in summary.problems if p not in hard
    ]
    summary.problems = hard


def check_leaf(cfg: Config, leaf: Leaf, limit: int | None,
               workers: int) -> Summary:
    """Check one dataset, and compare the heads with it."""
    dataset, problems = try_build(leaf)
    if dataset is None:
        return Summary(problems=problems)
    summary = check_dataset(dataset, leaf, cfg, limit, workers)
    if summary.skipped:
        return summary
    soften(summary, leaf)
    summary.problems[:0] = check_heads(cfg, len(dataset.metainfo['classes']))
    summary.warnings += check_metric(cfg, leaf.loader)
    return summary


def check_leaves(cfg: Config, leaves: Sequence[Leaf], limit: int | None,
                 workers: int) -> dict[str, Summary]:
    """Check datasets, and compare the heads with them."""
    result = {
        leaf.key: guarded(partial(check_leaf, cfg, leaf, limit, workers))
        for leaf in leaves
    }
    result[leaves[0].key].problems[:0] = check_padding(cfg)
    return result
