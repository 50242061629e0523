# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Write real images of handwritten digits as an image folder.

The 1797 images of 8x8 pixels (from the UCI repository) are part of
scikit-learn, so they need no download. The folder has ImageNet's layout.
"""
from pathlib import Path

import cv2
import numpy as np

CLASSES = tuple(str(digit) for digit in range(10))
TOTAL = 1797
SIZE = 64  # height and width in pixels after upsampling


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return images [1797, 8, 8] of uint8, dark on white, and their digits.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            'the digits are part of scikit-learn, which is not installed: '
            'pip install scikit-learn') from error
    digits = datasets.load_digits()
    images = np.round(255 - digits.images * (255 / 16)).astype(np.uint8)
    return images, digits.target


def split_digits(train: int, val: int, seed: int) -> dict[str, np.ndarray]:
    """Split the digits at random into training and validation images.

    Raises:
        ValueError: If there are too few digits.
    """
    if train < 1 or val < 1 or train + val > TOTAL:
        raise ValueError(f'cannot split {TOTAL} digits into {train} for '
                         f'training and {val} for validation')
    order = np.random.default_rng(seed).permutation(TOTAL)
    return dict(train=order[:train], val=order[train:train + val])


def write_digits(root: Path,
                 train: int = 1198,
                 val: int = 599,
                 seed: int = 0):
    """Write an image folder with label files; equal arguments, equal files.

    Writes ``train/<digit>/<number>.png``, ``val/<digit>/<number>.png`` and
    ``meta/{train,val}.txt`` with a path and a class in each line. By default
    two thirds are for training.

    Args:
        root: Empty or absent folder.
        train: Number of training images.
        val: Number of held-out images, disjoint from the training images.
        seed: Seed of the split.

    Raises:
        ValueError: If there are too few digits.
        ImportError: If scikit-learn is not installed.
    """
    parts = split_digits(train, val, seed)
    images, labels = load_digits()
    (root / 'meta').mkdir(parents=True)
    for part, chosen in parts.items():
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
        lines = []
        for i in sorted(chosen):
            path = f'{labels[i]}/{i:04d}.png'
            image = cv2.resize(
                images[i], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(root / part / path), image)
            lines.append(f'{path} {labels[i]}\n')
        (root / 'meta' / f'{part}.txt').write_text(
            ''.join(lines), encoding='utf-8')
