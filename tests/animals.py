# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A small dataset with keypoints of its own: the template, made tiny."""
import json

import cv2
import numpy as np
from helpers import CONFIGS
from mmengine.config import Config

from hrformer_mm.engine.train import set_data_root

TEMPLATE = CONFIGS / 'pose/custom_keypoints.py'
NAMES = ('nose', 'left_ear', 'right_ear', 'left_paw', 'right_paw', 'tail')
WIDTH, HEIGHT = 90, 70
# Small enough to train in a test.
TINY = {
    'model.backbone.arch': dict(
        _delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
        modules=(1, 1, 1), blocks=1),
    'model.head.in_channels': 8,
    'default_hooks.checkpoint': None,
}  # yapf: disable


def animal(rng, image, number):
    x, y, w, h = box = rng.integers((2, 2, 30, 25), (20, 15, 60, 50)).tolist()
    points = rng.random((6, 3)) * (w, h, 0) + (x, y, 2)
    return dict(id=number, image_id=image, category_id=1, iscrowd=0, bbox=box,
                area=w * h / 2, num_keypoints=6,
                keypoints=points.round(1).flatten().tolist())


def write_animals(root, images=4):
    """Noise with six keypoints, in the layout of the template."""
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        (root / split).mkdir()
        files = [dict(id=i, file_name=f'{i}.jpg', width=WIDTH, height=HEIGHT)
                 for i in range(1, images + 1)]
        for file in files:
            cv2.imwrite(str(root / split / file['file_name']),
                        rng.integers(0, 255, (HEIGHT, WIDTH, 3), 'u1'))
        save(root, split, dict(
            images=files, categories=[dict(id=1, name='cat')],
            annotations=[animal(rng, i, i) for i in range(1, images + 1)]))
    return root


def annotations(root, split='train'):
    return json.loads((root / f'annotations/{split}.json').read_text())


def save(root, split, content):
    (root / f'annotations/{split}.json').write_text(json.dumps(content))


def config(root):
    cfg = Config.fromfile(TEMPLATE)
    set_data_root(cfg, str(root))
    return cfg
