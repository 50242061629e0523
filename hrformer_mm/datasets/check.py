# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Look through a config's data before a run does.

The module of each task has ``check_loaders(cfg, loaders, limit, workers)``,
which gives a :class:`Summary` for each of the loaders.
"""
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
from mmengine.config import Config
from PIL import Image, UnidentifiedImageError

from ..checks import check_data, check_parts

# By the config's default_scope.
CHECKERS = dict(mmpose='check_pose', mmseg='check_seg', mmpretrain='check_cls')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
Size = Tuple[int, int]  # width and height
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # of EXIF; on their side


@dataclass(frozen=True)
class Problem:
    """One fault of the data."""
    path: str  # of the file, or the key of the config
    what: str  # what is wrong with it, to be read after the path
    fatal: bool = True  # whether training stops at it, sooner or later

    def __str__(self) -> str:
        return f'{self.path} {self.what}'


@dataclass
class Summary:
    """What a data set holds.

    Attributes:
        counts: What was counted, such as images and labels.
        classes: How often each class occurs, in the order of the data set:
            pixels in segmentation, images in classification, instances that
            have the key point in pose estimation.
        problems: In the order of the data set.
        sizes: Of the images that could be read.
        kind: What ``classes`` are.
    """
    counts: Dict[str, int] = field(default_factory=dict)
    classes: Dict[str, int] = field(default_factory=dict)
    problems: List[Problem] = field(default_factory=list)
    sizes: List[Size] = field(default_factory=list)
    kind: str = 'classes'

    @property
    def absent(self) -> List[str]:
        """Classes that do not occur."""
        return [name for name, count in self.classes.items() if not count]


def map_threads(check: Callable, items: Sequence, workers: int) -> Iterator:
    """``check`` of each item in order; decoding images frees the threads."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(check, items)


def probe_image(path: str) -> Tuple[Optional[Size], Optional[Problem]]:
    """The size of an image as training sees it, and what is wrong with it."""
    try:
        with Image.open(path) as image:
            size = image.size
            if image.getexif().get(ORIENTATION) in TURNED:
                size = size[::-1]
            image.draft('RGB', (64, 64))  # JPEG is decoded at a fraction
            image.load()  # cv2 gives an image that was cut off, half grey
    except FileNotFoundError:
        return None, Problem(path, 'does not exist')
    except UnidentifiedImageError:
        return None, Problem(path, 'cannot be read as an image')
    except (OSError, SyntaxError, ValueError) as error:
        return None, Problem(path, f'cannot be read as an image: {error}')
    if not cv2.haveImageReader(path):
        return size, Problem(path, f'is a {image.format}, which OpenCV, that '
                             'training reads with, does not know')
    return size, None


def spread(length: int, limit: Optional[int]) -> List[int]:
    """At most ``limit`` indices, evenly over all of them."""
    if limit is None or limit >= length:
        return list(range(length))
    return [i * length // limit for i in range(limit)]


def distinct_loaders(cfg: Config) -> List[str]:
    """Loaders of the config, without those that read the same as another."""
    found: List[Tuple[str, dict]] = []
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and all(loader['dataset'] != d for _, d in found):
            found.append((name, loader['dataset']))
    return [name for name, _ in found]


def check(cfg: Config,
          limit: Optional[int] = None,
          workers: int = 8) -> Dict[str, Summary]:
    """Check all data of a config, by data loader.

    Args:
        limit: Look at so many samples of each data set instead of all.
        workers: Threads that read files.

    Raises:
        FileNotFoundError: If a whole folder or list is missing.
        ValueError: If the task cannot be checked, or a number is not
            positive.
    """
    scope = cfg.get('default_scope')
    if scope not in CHECKERS:
        raise ValueError(f'data of the scopes {sorted(CHECKERS)} can be '
                         f'checked, got {scope!r}')
    for name, value in (('limit', limit), ('workers', workers)):
        if value is not None and value < 1:
            raise ValueError(f'{name} must be at least 1, got {value}')
    check_parts(cfg, 'model')
    loaders = distinct_loaders(cfg)
    if not loaders:
        raise ValueError(f'{cfg.filename} has no data loaders')
    check_data(cfg, *loaders)
    checker = import_module(f'.{CHECKERS[scope]}', __package__)
    return checker.check_loaders(cfg, loaders, limit, workers)


def describe_sizes(sizes: Sequence[Size]) -> str:
    """The smallest and the largest image."""
    ends = sorted(set(sizes), key=lambda size: size[0] * size[1])
    words = ' to '.join(f'{w} x {h}' for w, h in dict.fromkeys(
        (ends[0], ends[-1])))  # yapf: disable
    return f'images of {words} (width x height)'


def describe(summary: Summary, most: int = 10) -> List[str]:
    """A summary in lines, with at most ``most`` problems and names."""
    counts = [f'{n} {what}' for what, n in summary.counts.items()]
    present = len(summary.classes) - len(summary.absent)
    lines = [', '.join(counts) +
             f', {present} of {len(summary.classes)} {summary.kind}']
    if summary.sizes:
        lines.append(describe_sizes(summary.sizes))
    if summary.absent:
        dots = ', ...' * (len(summary.absent) > most)
        lines.append(f'{summary.kind} that do not occur: '
                     f"{', '.join(summary.absent[:most])}{dots}")
    lines += [f'problem: {problem}' for problem in summary.problems[:most]]
    rest = len(summary.problems) - most
    if rest > 0:
        lines.append(f'and {rest} more problems')
    return lines
