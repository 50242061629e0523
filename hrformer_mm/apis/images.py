# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Images from Python code: paths, arrays and PIL images."""
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from numpy import ndarray

from .decode import as_bgr, from_pil
from .inputs import Frame, Source

KINDS = ('paths, arrays [H, W, 3] of uint8 with channels in order BGR, or PIL '
         'images')


def is_pil(image: Any) -> bool:
    """Return whether an object is an image of PIL, without importing it."""
    module = sys.modules.get('PIL.Image')
    return module is not None and isinstance(image, module.Image)


def is_one(images: Any) -> bool:
    """Return whether an object is one image, not several of them."""
    if isinstance(images, ndarray):
        return images.ndim != 4
    return isinstance(images, (str, bytes, os.PathLike, torch.Tensor)) \
        or is_pil(images)


def to_frame(image: Any, name: str, read: Callable[[str],
                                                   ndarray]) -> Frame:
    """Return an image as a frame.

    Args:
        image: Path, array or PIL image.
        name: Name of an image that has no path.
        read: Returns the image of a path.

    Raises:
        OSError: If a file cannot be read.
        TypeError: For any other type; lists the accepted ones.
        ValueError: For an array that is not an image.
    """
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        if isinstance(path, str):
            return Frame(Source(path, name, 'image'), read(path))
    source = Source(name, name, 'image')
    if isinstance(image, ndarray):
        return Frame(source, as_bgr(image))
    if is_pil(image):
        return Frame(source, from_pil(image))
    hint = '; use tensor.permute(1, 2, 0).numpy()' if isinstance(
        image, torch.Tensor) else ''
    raise TypeError(f'images are {KINDS}, got {type(image).__name__}{hint}')


def to_list(images: Any) -> tuple[Iterable[Any], bool]:
    """Return images as an iterable, and whether they are a single one.

    Raises:
        TypeError: If it is neither an image nor an iterable.
    """
    if is_one(images):
        return [images], True
    try:
        if isinstance(images, Mapping):
            raise TypeError
        iter(images)
    except TypeError:
        raise TypeError(f'images are {KINDS}, or a list of them, got '
                        f'{type(images).__name__}') from None
    return images, False


class Results:
    """Iterator over the results of images, in their order.

    The result of a single image, ``predictor('photo.jpg')``, is the only item;
    it is ``predictor('photo.jpg')[0]`` as well, and its attributes are those
    of the iterator: ``predictor('photo.jpg').keypoints``.

    Args:
        results: Iterator over the results.
        is_single: Whether there is one image.
    """

    def __init__(self, results: Iterator[Any], is_single: bool):
        self._results, self._is_single = results, is_single
        self._first: list[Any] = []

    def __iter__(self) -> 'Results':
        return self

    def __next__(self) -> Any:
        found = next(self._results)
        self._first = self._first or [found]
        return found

    def __getitem__(self, index: int) -> Any:
        if not self._is_single:
            raise TypeError('results of several images are computed one after '
                            'the other: iterate over them, or use list()')
        return [self._only()][index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):
            raise AttributeError(name)
        if not self._is_single:
            raise AttributeError(
                f'results of several images have no {name!r}: iterate over '
                'them, there is one result for each image')
        return getattr(self._only(), name)

    def _only(self) -> Any:
        if not self._first:  # not iterated over yet
            self._results = iter([next(self)])
        return self._first[0]
