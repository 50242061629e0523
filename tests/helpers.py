# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Paths, and configs made small enough to train in a test."""
import json
import subprocess
import sys
import sysconfig
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from hrformer_mm.core.versions import torch_is_at_least
from hrformer_mm.engine.preflight.rehearsal import without_pretrained

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
SHARED = ROOT.parent / 'shared'  # may be absent; tests that use it skip
NEEDS_FLOAT16 = pytest.mark.skipif(
    not torch_is_at_least('2.2'),
    reason='torch 2.1 has no products of float16 on CPU')
ONE_GRAPH = pytest.mark.skipif(
    not torch_is_at_least('2.4'),
    reason='older compilers split the network into several graphs')
# Has all that a network of ours has, and trains in a second.
SMALL = dict(channels=(8, 16, 32, 64), heads=(1, 1, 2, 4), modules=(1, 1, 1),
             blocks=1)  # yapf: disable

runs = count()


def shorten(cfg: Config):
    """Two iterations in batches of 2, then one evaluation of 4 samples."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        cfg[name].update(
            batch_size=2, num_workers=0, persistent_workers=False)
        cfg[name].dataset.indices = 4
    if cfg.train_cfg.get('max_iters'):
        cfg.train_cfg.update(max_iters=2, val_interval=2)
    else:
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 1


def tiny_config(config: str | Path,
                work_dir: Path,
                data_root: Path | None = None,
                **options: Any) -> Config:
    """Return a config that trains for 2 iterations on CPU and evaluates.

    In full precision, from scratch, without workers and synchronised norms.

    Args:
        config: Path of the config, absolute or below ``configs``.
        work_dir: For logs and checkpoints.
        data_root: Replaces the config's ``data_root``, wherever the
            config uses it.
        **options: Merged last, as ``--cfg-options`` does it; write dotted
            keys as ``**{'model.backbone.arch': 'tiny'}``.
    """
    cfg = Config.fromfile(CONFIGS / config)
    if data_root is not None:
        from hrformer_mm.engine.train import set_data_root
        set_data_root(cfg, str(data_root))
    without_pretrained(cfg.model)
    shorten(cfg)
    cfg.optim_wrapper.type = 'OptimWrapper'
    for key in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(key, None)
    cfg.sync_bn = None
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.work_dir = str(work_dir)
    # Runners share what has the same name within a process.
    cfg.experiment_name = f'{Path(config).stem}_{next(runs)}'
    cfg.visualizer.name = cfg.experiment_name
    cfg.merge_from_dict(options)
    return cfg


def run_training(cfg: Config) -> Runner:
    """Train as a config says; see :func:`last_scalars` for the results."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def last_scalars(runner: Runner) -> dict[str, float]:
    """Last value of all that was logged, such as ``val/coco/AP``."""
    return {
        name: buffer.current()
        for name, buffer in runner.message_hub.log_scalars.items()
    }


def person(rng: np.random.Generator, image: int, number: int) -> dict:
    """A COCO annotation with all keypoints at random inside a random box."""
    x, y, w, h = box = (rng.random(4) * 40 + (5, 5, 30, 60)).tolist()
    points = rng.random((17, 3)) * (w, h, 0) + (x, y, 2)
    return dict(
        id=number,
        image_id=image,
        category_id=1,
        iscrowd=0,
        bbox=box,
        area=w * h / 2,
        num_keypoints=17,
        keypoints=points.round(1).flatten().tolist())


def write_tiny_coco(root: Path, images: int = 3, people: int = 2) -> Path:
    """Noise in the layout of COCO: train, val, test-dev and detections."""
    rng = np.random.default_rng(0)
    parts = dict(train2017='person_keypoints_train2017',
                 val2017='person_keypoints_val2017',
                 test2017='image_info_test-dev2017')  # yapf: disable
    files = [dict(id=i, file_name=f'{i:012d}.jpg', width=120, height=110)
             for i in range(1, images + 1)]  # yapf: disable
    anns = [person(rng, i, 10 * i + k) for i in range(1, images + 1)
            for k in range(people)]  # yapf: disable
    for folder in (*parts, 'annotations', 'person_detection_results'):
        (root / folder).mkdir(parents=True)
    for folder, name in parts.items():
        for file in files:
            cv2.imwrite(str(root / folder / file['file_name']),
                        rng.integers(0, 255, (110, 120, 3), 'u1'))
        content = dict(images=files, categories=[dict(id=1, name='person')])
        if folder != 'test2017':
            content['annotations'] = anns
        (root / f'annotations/{name}.json').write_text(json.dumps(content))
    found: list[dict] = [
        dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=.9)
        for a in anns
    ]
    for name in ('val2017_detections_AP_H_56', 'test-dev2017_detections_'
                 'AP_H_609'):
        (root / f'person_detection_results/COCO_{name}_person.json'
         ).write_text(json.dumps(found))
    return root


def onnx_predict(*args: Any) -> list[list[str]]:
    """Return the output of the script without PyTorch, split into words."""
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/onnx_predict.py'), *map(str, args)],
        capture_output=True, text=True)  # yapf: disable
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def package_folders() -> str:
    """Folders of this Python's packages, as lines of a .pth file.

    In an environment with system packages, there are several.
    """
    own = sysconfig.get_path('purelib')
    folders = [own, *(path for path in sys.path if path.endswith('-packages'))]
    return '\n'.join(dict.fromkeys(folders)) + '\n'
