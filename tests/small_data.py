# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Noise in the layout of each small real dataset."""
import json

import cv2
import numpy as np

HW = (96, 128)


def write_keypoints(root, keypoints, prefix, suffix, ext):
    """Write 4 images of one animal or person each for train and val."""
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for part in ('train', 'val'):
        folder = root / 'images' / part
        folder.mkdir(parents=True)
        images, anns = [], []
        for i in range(1, 5):
            name = f'{part}{i}{ext}'
            cv2.imwrite(
                str(folder / name), rng.integers(0, 255, (*HW, 3), 'u1'))
            images.append(
                dict(id=i, file_name=name, height=HW[0], width=HW[1]))
            points = rng.random((keypoints, 3)) * (HW[1], HW[0], 0) + (0, 0, 2)
            anns.append(
                dict(
                    id=i,
                    image_id=i,
                    category_id=1,
                    iscrowd=0,
                    bbox=[0, 0, HW[1], HW[0]],
                    area=HW[0] * HW[1],
                    num_keypoints=keypoints,
                    keypoints=points.round(1).flatten().tolist()))
        content = dict(
            images=images,
            annotations=anns,
            categories=[dict(id=1, name='animal')])
        (root / f'annotations/{prefix}_{part}{suffix}.json').write_text(
            json.dumps(content))


def write_camvid(root):
    """Write 4 images and labels of 11 classes for each of three parts."""
    rng = np.random.default_rng(0)
    for part in ('train', 'val', 'test'):
        for kind in ('images', 'labels'):
            (root / kind / part).mkdir(parents=True)
        for i in range(4):
            label = rng.integers(0, 11, HW, 'u1')
            label[:8] = 255
            cv2.imwrite(
                str(root / f'images/{part}/{i}.jpg'),
                rng.integers(0, 255, (*HW, 3), 'u1'))
            cv2.imwrite(str(root / f'labels/{part}/{i}.png'), label)


WRITERS = dict(
    lspet=lambda root: write_keypoints(root, 14, 'person_keypoints', '',
                                       '.jpg'),
    openfield=lambda root: write_keypoints(root, 4, 'keypoints', '_wholeimage',
                                           '.jpg'),
    fly=lambda root: write_keypoints(root, 32, 'keypoints', '_wholeimage',
                                     '.png'),
    camvid=write_camvid)
