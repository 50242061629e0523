# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Drawn people as detection configs read them, and a tiny model."""
import json
from pathlib import Path

from helpers import tiny_config
from mmengine.config import Config

from hrformer_mm.quickstart.synthetic.people import make_people

ARCH = dict(_delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
            modules=(1, 1, 1), blocks=1)  # yapf: disable
SYNTHETIC = 'det/hrformer_t_synthetic_96x128_mask-rcnn.py'


def write_det(root: Path, images: int = 4) -> Path:
    """Write people with boxes and masks, as one class and as COCO's 80."""
    from mmdet.datasets import CocoDataset
    make_people(root, images, images)
    names = CocoDataset.METAINFO['classes']
    for split in ('train2017', 'val2017'):
        path = root / f'annotations/person_keypoints_{split}.json'
        content = json.loads(path.read_text())
        content['categories'] = [
            dict(id=i + 1, name=name) for i, name in enumerate(names)
        ]
        path.with_name(f'instances_{split}.json').write_text(
            json.dumps(content))
    return root


def shrink(steps: list, scale: tuple):
    for step in steps:
        if step['type'] == 'Resize':
            step['scale'] = scale


def tiny_det(config: str, work_dir: Path, data: Path, **options) -> Config:
    """Return a detection config that trains for 2 iterations on CPU."""
    cfg = tiny_config(config, work_dir, data, **{
        'model.backbone.arch': ARCH,
        'model.neck.in_channels': [8, 16, 32, 64]}, **options)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        shrink(cfg[name].dataset.pipeline, (96, 64))
    # Untrained detectors are not sure of any box.
    test_cfg = cfg.model.test_cfg
    test_cfg.get('rcnn', test_cfg).score_thr = 0.
    return cfg
