# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check the data of a config before a run.

The module of each task has ``check_leaves(cfg, leaves, limit, workers)``,
which returns a :class:`Summary` for each of the datasets. Datasets inside
wrappers are checked one by one. Datasets that cannot be checked are skipped.
"""
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import cv2
from mmengine.config import Config
from PIL import Image, UnidentifiedImageError

from ...tasks import get_task
from ...utils.cli import one_line
from ...utils.config_checks import check_data_files, check_parts
from ...utils.dataset_leaves import Leaf, datasets_of, type_name

# By the config's default_scope.
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
Size = tuple[int, int]  # width and height
# EXIF tag, and its values that swap width and height.
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class Problem:
    """An error or warning about the data."""
    path: str  # path of the file, or key of the config
    what: str  # description, printed after the path
    fatal: bool = True  # whether training fails because of it

    def __str__(self) -> str:
        return f'{self.path} {self.what}'


@dataclass
class Summary:
    """Contents of a dataset.

    Attributes:
        counts: Numbers of images, labels and so on.
        classes: Number of occurrences of each class, in the order of the
            dataset: pixels in segmentation, images in classification,
            instances that have the keypoint in pose estimation.
        problems: Errors, in the order of the dataset.
        sizes: Sizes of all readable images.
        kind: Word for the keys of ``classes``.
        notes: Lines to print after the counts.
        warnings: Findings that may be intended.
        skipped: Reason why the dataset was not checked, if any.
        dataset: Types of the dataset and its wrappers.
    """
    counts: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    kind: str = 'classes'
    notes: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    skipped: str = ''
    dataset: str = ''

    @property
    def absent(self) -> list[str]:
        """Return the classes that do not occur."""
        return [name for name, count in self.classes.items() if not count]


def map_threads(check: Callable, items: Sequence, workers: int) -> Iterator:
    """Yield ``check(item)`` in order; image decoding releases the GIL."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(check, items)


def probe_image(
        path: str,
        with_opencv: bool = True
) -> tuple[Size | None, Problem | None]:
    """Return the size of an image as training sees it, and its error.

    Args:
        path: Path of the image.
        with_opencv: Whether training decodes it with OpenCV.
    """
    try:
        with Image.open(path) as image:
            size = image.size
            if image.getexif().get(ORIENTATION) in TURNED:
                size = size[::-1]
            image.draft('RGB', (64, 64))  # decode JPEG at a small size
            image.load()  # raises if truncated; OpenCV returns a grey part
    except FileNotFoundError:
        return None, Problem(path, 'does not exist')
    except UnidentifiedImageError:
        return None, Problem(path, 'cannot be read as an image')
    except (OSError, SyntaxError, ValueError) as error:
        return None, Problem(path, f'cannot be read as an image: {error}')
    if with_opencv and not cv2.haveImageReader(path):
        return size, Problem(path, f'is a {image.format}, which OpenCV, that '
                             'training reads with, does not know')
    return size, None


def spread_samples(length: int, limit: int | None) -> list[int]:
    """Return at most ``limit`` indices, evenly spaced."""
    if limit is None or limit >= length:
        return list(range(length))
    return [i * length // limit for i in range(limit)]


def distinct_loaders(cfg: Config) -> list[str]:
    """List the data loaders of a config, without duplicates."""
    found: list[tuple[str, dict]] = []
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and all(loader['dataset'] != d for _, d in found):
            found.append((name, loader['dataset']))
    return [name for name, _ in found]


def check_datasets(cfg: Config,
                   limit: int | None = None,
                   workers: int = 8) -> dict[str, Summary]:
    """Check all data of a config.

    Args:
        cfg: Config.
        limit: Maximum number of samples of each dataset (default: all).
        workers: Number of threads that read files.

    Returns:
        Summary by data loader, or by the key of each dataset if wrappers of a
        loader hold several.

    Raises:
        FileNotFoundError: If a whole folder or list is missing.
        ValueError: If the task cannot be checked, or a number is not
            positive.
    """
    task = get_task(cfg)
    for name, value in (('limit', limit), ('workers', workers)):
        if value is not None and value < 1:
            raise ValueError(f'{name} must be at least 1, got {value}')
    check_parts(cfg, 'model')
    loaders = distinct_loaders(cfg)
    if not loaders:
        raise ValueError(f'{cfg.filename} has no data loaders')
    check_data_files(cfg, *loaders)
    checker = import_module(f'.{task.name}', __package__)
    leaves = [leaf for loader in loaders for leaf in datasets_of(cfg, loader)]
    result = checker.check_leaves(cfg, leaves, limit, workers)
    for leaf in leaves:
        result[leaf.key].dataset = leaf.name
    return result


def skip(reason: str) -> Summary:
    """Return the summary of a dataset that is not checked."""
    return Summary(skipped=reason)


def unloadable(leaf: Leaf, error: Exception) -> Problem:
    """Return the problem of a dataset that cannot be built."""
    return Problem(
        leaf.key, f'cannot be loaded by {type_name(leaf.cfg)}: '
        f'{type(error).__name__}: {one_line(error)}')


def guarded(check_leaf: Callable[[], Summary]) -> Summary:
    """Call a check; skip the dataset if the check raises an exception.

    Raises:
        FileNotFoundError: If a whole folder or list is missing.
    """
    try:
        return check_leaf()
    except FileNotFoundError:
        raise
    except Exception as error:  # unknown formats
        return skip(f'{type(error).__name__}: {one_line(error)}')


def try_build(leaf: Leaf) -> tuple[Any, list[Problem]]:
    """Build a dataset as training does, and return it or the problem."""
    try:
        return leaf.build(), []
    except Exception as error:  # training raises the same
        return None, [unloadable(leaf, error)]


def check_images(paths: Sequence[str], workers: int, summary: Summary,
                 leaf: Leaf) -> list[Size | None]:
    """Read image files; add their sizes and problems to a summary."""
    probe = partial(probe_image, with_opencv=leaf.reads_with_opencv)
    found = list(map_threads(probe, paths, workers))
    summary.sizes += [size for size, _ in found if size]
    summary.problems += [problem for _, problem in found if problem]
    return [size for size, _ in found]


# Functions of the frameworks that read annotations.
LOADING = ('full_init', 'load_data_list', '_load_annotations')


@contextmanager
def name_loading_faults(cfg: Config, *loaders: str) -> Iterator[None]:
    """Add file and entry to the error of a dataset that cannot be loaded.

    Raises:
        ValueError: If annotations cannot be loaded and the checks find the
            reason.
    """
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any(frame.name in LOADING for frame in frames):
            raise
        alone = deepcopy(cfg)
        for other in {*LOADERS} - {*loaders}:
            alone[other] = None
        with suppress(Exception):  # the first error is the one to raise
            found = [p for summary in check_datasets(alone, limit=1).values()
                     for p in summary.problems if p.fatal]
            if found:
                error = ValueError(str(found[0]))
        raise error


def describe_sizes(sizes: Sequence[Size]) -> str:
    """Describe the smallest and the largest image."""
    ends = sorted(set(sizes), key=lambda size: size[0] * size[1])
    words = ' to '.join(f'{w} x {h}' for w, h in dict.fromkeys(
        (ends[0], ends[-1])))  # yapf: disable
    return f'images of {words} (width x height)'


def describe_all(label: str, problems: Sequence[Problem],
                 most: int) -> list[str]:
    """Describe at most ``most`` problems, and count the rest."""
    lines = [f'{label}: {problem}' for problem in problems[:most]]
    rest = len(problems) - most
    return lines + [f'and {rest} more {label}s'] * (rest > 0)


def describe_summary(summary: Summary, most: int = 10) -> list[str]:
    """Describe a summary in lines, with at most ``most`` names each."""
    if summary.skipped:
        return [f'not checked: {summary.skipped}',
                *describe_all('problem', summary.problems, most)]
    counts = [f'{n} {what}' for what, n in summary.counts.items()]
    present = len(summary.classes) - len(summary.absent)
    if summary.classes:
        counts.append(f'{present} of {len(summary.classes)} {summary.kind}')
    lines = [', '.join(counts)] * bool(counts)
    if summary.sizes:
        lines.append(describe_sizes(summary.sizes))
    if summary.absent:
        dots = ', ...' * (len(summary.absent) > most)
        lines.append(f'{summary.kind} that do not occur: '
                     f"{', '.join(summary.absent[:most])}{dots}")
    return [
        *lines, *summary.notes,
        *describe_all('warning', summary.warnings, most),
        *describe_all('problem', summary.problems, most)
    ]
