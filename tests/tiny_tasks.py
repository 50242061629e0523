# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A config of each task with data, small enough to train in seconds."""
from pathlib import Path

import cv2
import numpy as np
import seg_data
from helpers import tiny_config, write_tiny_coco
from mmengine.config import Config

ARCH = dict(_delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
            modules=(1, 1, 1), blocks=1)  # yapf: disable
CONFIG_FILES = dict(
    pose='pose/hrformer_t_synthetic_112x84.py',
    seg='seg/hrformer_t_synthetic_112x224.py',
    cls='cls/hrformer_t_digits_64.py')
OPTIONS = dict(
    pose={'model.head.in_channels': 8},
    seg={
        # Ours places small images at random, drawn for a batch as a whole.
        'model.data_preprocessor.type': 'SegDataPreProcessor',
        'model.decode_head.in_channels': (8, 16, 32, 64),
        'model.decode_head.dropout_ratio': 0.,
        # Ours divide by labelled pixels, of which processes have different
        # numbers; this one divides by all.
        'model.decode_head.loss_decode': dict(
            _delete_=True, type='CrossEntropyLoss'),
        'model.decode_head.loss_aux': dict(
            _delete_=True, type='CrossEntropyLoss'),
    },
    cls={'model.neck.in_channels': (8, 16, 32, 64)})


def write_tiny_folders(root: Path, images: int = 8) -> Path:
    """Noise in the layout of ImageNet, ten classes as digits have."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for i in range(images):
            folder = root / split / str(i % 10)
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'{i}.png'),
                        rng.integers(0, 255, (32, 32, 3), 'u1'))
        for i in range(10):
            (root / split / str(i)).mkdir(exist_ok=True)
    return root


def task_config(task: str, folder: Path, samples: int = 8, batch: int = 2,
                passes: int = 3) -> Config:
    """Return a config with a checkpoint and an evaluation after each pass.

    Args:
        task: pose, seg or cls.
        folder: Data and the work dir ``run`` go there.
        samples: For training; five less one are evaluated on.
        batch: Batch size of each process.
        passes: Number of passes over the training data of one process.
    """
    data = folder / 'data'
    if not data.exists():
        dict(pose=lambda: write_tiny_coco(data, samples, 1),
             seg=lambda: seg_data.write_tiny('cityscapes', data, samples),
             cls=lambda: write_tiny_folders(data, samples))[task]()
    cfg = tiny_config(CONFIG_FILES[task], folder / 'run', data, **{
        'model.backbone.arch': ARCH, 'model.backbone.drop_path_rate': 0.,
        'sync_bn': 'torch'}, **OPTIONS[task])  # yapf: disable
    cfg.train_dataloader.batch_size = batch
    cfg.train_dataloader.dataset.indices = samples
    for name in ('val_dataloader', 'test_dataloader'):
        cfg[name].dataset.indices = 5
    iters = samples // batch
    if cfg.train_cfg.get('max_iters'):
        cfg.train_cfg.update(max_iters=passes * iters, val_interval=iters)
        cfg.default_hooks.checkpoint.interval = iters
    else:
        cfg.train_cfg.update(max_epochs=passes, val_interval=1)
        cfg.default_hooks.checkpoint.interval = 1
    cfg.randomness = dict(seed=0, deterministic=True)
    cfg.env_cfg.mp_cfg.mp_start_method = 'fork'
    return cfg
