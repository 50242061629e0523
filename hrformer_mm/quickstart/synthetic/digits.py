# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Real images of handwritten digits as an image folder.

scikit-learn ships 1797 of them inside its package (8x8 pixels, from the UCI
repository), so they need no download. The folder is laid out like ImageNet.
"""
from pathlib import Path
from typing import Dict, Tuple

import cv2
import numpy as np

CLASSES = tuple(str(digit) for digit in range(10))
TOTAL = 1797
SIZE = 64  # height and width in pixels that the 8x8 are enlarged to


def load_digits() -> Tuple[np.ndarray, np.ndarray]:
    """Images [1797, 8, 8] of uint8, dark on white, and their digits.

    Raises:
        ImportError: Without scikit-learn; says how to install it.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            'the digits come with scikit-learn, which is not installed: '
            'pip install scikit-learn') from error
    digits = datasets.load_digits()
    images = np.round(255 - digits.images * (255 / 16)).astype(np.uint8)
    return images, digits.target


def split(train: int, val: int, seed: int) -> Dict[str, np.ndarray]:
    """Draw which of the digits are trained on and which are held out.

    Raises:
        ValueError: If there are fewer digits than that.
    """
    if train < 1 or val < 1 or train + val > TOTAL:
        raise ValueError(f'there are {TOTAL} digits, which do not make '
                         f'{train} for training and {val} for validation')
    order = np.random.default_rng(seed).permutation(TOTAL)
    return dict(train=order[:train], val=order[train:train + val])


def write_digits(root: Path,
                 train: int = 1198,
                 val: int = 599,
                 seed: int = 0):
    """Write an image folder with label files; the same for the same arguments.

    Makes ``train/<digit>/<number>.png``, ``val/<digit>/<number>.png`` and
    ``meta/{train,val}.txt`` with a path and a class in each line. By default
    two thirds are for training.

    Args:
        root: An empty or absent folder.
        train: Images for training.
        val: Images held out, none of them among the former.
        seed: Of the split.

    Raises:
        ValueError: If there are fewer digits than that.
        ImportError: Without scikit-learn; says how to install it.
    """
    parts = split(train, val, seed)
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
