# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A few images in the real folder layout of each segmentation dataset."""
from pathlib import Path

import cv2
import numpy as np

SIZE = (48, 64)  # height and width

# Folder and suffix of images and of labels, lists of names, and the labels
# that the files of the dataset hold.
LAYOUTS = {
    'cityscapes': dict(
        images=('leftImg8bit/{}/town', '_leftImg8bit.png'),
        labels=('gtFine/{}/town', '_gtFine_labelTrainIds.png'),
        splits=('train', 'val'),
        values=(0, 19, 255)),
    'pascal-context': dict(
        images=('JPEGImages', '.jpg'),
        labels=('SegmentationClassContext', '.png'),
        splits=('train', 'val'),
        lists='ImageSets/SegmentationContext/{}.txt',
        values=(0, 60, 0)),
    'coco-stuff': dict(
        images=('images/{}', '.jpg'),
        labels=('annotations/{}', '_labelTrainIds.png'),
        splits=('train2014', 'test2014'),
        values=(0, 172, 0)),
    'coco-stuff-164k': dict(
        images=('images/{}', '.jpg'),
        labels=('annotations/{}', '_labelTrainIds.png'),
        splits=('train2017', 'val2017'),
        values=(0, 171, 255)),
    'ade20k': dict(
        images=('images/{}', '.jpg'),
        labels=('annotations/{}', '.png'),
        splits=('training', 'validation'),
        values=(0, 151, 0)),
}
LAYOUTS['pascal-context-60'] = LAYOUTS['pascal-context']


def draw_label(rng: np.random.Generator, low: int, high: int,
               unlabelled: int) -> np.ndarray:
    """Blocks of random classes, one of them without."""
    blocks = rng.integers(low, high, (3, 4), dtype=np.uint8)
    blocks[0, 0] = unlabelled
    return cv2.resize(blocks, SIZE[::-1], interpolation=cv2.INTER_NEAREST)


def pair(root: Path, layout: dict, split: str,
         name: str) -> tuple[Path, Path]:
    return tuple(
        root / folder.format(split) / (name + suffix)
        for folder, suffix in (layout['images'], layout['labels']))


def write_tiny(dataset: str, root: Path, images: int = 4) -> Path:
    """Noise in the layout of a dataset, ``images`` in each split."""
    layout, rng = LAYOUTS[dataset], np.random.default_rng(0)
    for split in layout['splits']:
        names = [f'town_{split}_{i:06d}' for i in range(images)]
        for name in names:
            image, label = pair(root, layout, split, name)
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), rng.integers(0, 255, (*SIZE, 3), 'u1'))
            cv2.imwrite(str(label), draw_label(rng, *layout['values']))
        if 'lists' in layout:
            path = root / layout['lists'].format(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('\n'.join(names) + '\n')
    return root
