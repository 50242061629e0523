# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Small folders of labelled images."""
import cv2
import numpy as np

# Two classes of small images, and no hundreds of megabytes on disk.
SMALL_IMAGES = {
    **{f'{part}_dataloader.dataset.metainfo': dict(classes=('one', 'two'))
       for part in ('train', 'val', 'test')},
    'train_dataloader.dataset.pipeline.1.scale': 64,
    'val_dataloader.dataset.pipeline.1.scale': 72,
    'val_dataloader.dataset.pipeline.2.crop_size': 64,
    'default_hooks.checkpoint': None,
}  # yapf: disable


def write_labels(root, values):
    """Four images with discs of some of the values on 0, beside 255."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (root / kind / split).mkdir(parents=True)
        for i in range(4):
            label = np.zeros((70, 100), np.uint8)
            value = values[i % len(values)]
            cv2.circle(label, (50, 35), 20, int(value), -1)
            label[:, :15] = 255
            image = rng.integers(0, 90, (70, 100, 3), 'u1')
            image += (label == value)[..., None] * np.uint8(120)
            cv2.imwrite(str(root / f'images/{split}/{i}.jpg'), image)
            cv2.imwrite(str(root / f'labels/{split}/{i}.png'), label)
    return root


def write_images(root, layout):
    """Four images of two classes in either of ImageNet's layouts."""
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        lines = []
        for i in range(4):
            folder = f'n{i % 2}' if layout == 'folders' else '.'
            path = root / part / folder / f'{i}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            cv2.imwrite(str(path), image)
            lines.append(f'{folder}/{i}.jpg {i % 2}\n')
        if layout == 'labels':
            (root / 'meta').mkdir(exist_ok=True)
            (root / 'meta' / f'{part}.txt').write_text(''.join(lines))
