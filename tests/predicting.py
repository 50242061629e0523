# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Tiny models of all three tasks, and things to predict on."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from foreign import TINY
from helpers import tiny_config
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from hrformer_mm.__main__ import main

for package in ('mmpose', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)
COCO = pytest.importorskip('pycocotools.coco').COCO
ARCH = {
    'model.backbone.arch': dict(
        _delete_=True, channels=TINY.channels, heads=TINY.heads,
        modules=TINY.modules, blocks=1)
}  # yapf: disable
CONFIG_FILES = dict(
    pose=('pose/hrformer_t_synthetic_112x84.py',
          {'model.head.in_channels': TINY.channels[0]}),
    seg=('seg/hrformer_t_synthetic_112x224.py',
         {'model.decode_head.in_channels': TINY.channels,
          'model.decode_head.channels': 16,
          'model.decode_head.ocr_channels': 8}),
    cls=('cls/hrformer_t_digits_64.py',
         {'model.neck.in_channels': TINY.channels}))  # yapf: disable
PERSON = [20., 10., 40., 80.]  # x, y, width, height


def write_config(task: str, folder: Path) -> tuple[str, str]:
    """A config and random weights for it, as the Runner saves them."""
    path, small = CONFIG_FILES[task]
    # Not the data of a quickstart that was run in this checkout.
    cfg = tiny_config(path, folder / 'work', folder / 'nothing', **ARCH,
                      **small)
    config, weights = folder / f'{task}.py', folder / f'{task}.pth'
    cfg.dump(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(Config.fromfile(config).model)
    for layer in model.modules():
        if hasattr(layer, 'running_var'):  # or folding them would change much
            layer.running_mean.normal_()
            layer.running_var.uniform_(.5, 2)
    meta = dict(dataset_meta=dict(classes=tuple('abcdefghij'))
                ) if task == 'cls' else {}
    torch.save(dict(meta=meta, state_dict=model.state_dict()), weights)
    return str(config), str(weights)


def write_configs(folder: Path) -> dict:
    """Config and weights of all three tasks."""
    return {task: write_config(task, folder) for task in CONFIG_FILES}


def smooth(seed: int, height: int = 100, width: int = 120) -> np.ndarray:
    """A picture of soft blots, [H, W, 3]."""
    noise = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), 'u1')
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def write_video(path: Path, frames: int = 6) -> Path:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 12,
                            (120, 100))
    for i in range(frames):
        video.write(smooth(i))
    video.release()
    return path


def write_zoo(folder: Path) -> Path:
    """Images of all kinds, good and bad; see ``GOOD`` and ``BAD``."""
    folder.mkdir()
    cv2.imwrite(str(folder / 'color.jpg'), smooth(0))
    cv2.imwrite(str(folder / 'grey.png'), smooth(0)[..., 0])
    cv2.imwrite(str(folder / 'deep.png'), smooth(0).astype('u2') * 257)
    cv2.imwrite(str(folder / 'clear.png'),
                np.dstack([smooth(0), smooth(1)[..., :1]]))
    cv2.imwrite(str(folder / 'small.bmp'), smooth(0, 3, 5))
    frames = [Image.fromarray(smooth(i)[..., ::-1]) for i in range(3)]
    frames[0].save(folder / 'moving.gif', save_all=True, duration=100,
                   append_images=frames[1:])
    frames[0].save(folder / 'still.gif')
    whole = (folder / 'color.jpg').read_bytes()
    (folder / 'cut.jpg').write_bytes(whole[:len(whole) // 3])
    (folder / 'empty.png').write_bytes(b'')
    (folder / 'text.jpg').write_text('no image')
    (folder / 'broken.mp4').write_bytes(b'no video' * 99)
    (folder / 'notes.txt').write_text('left alone')
    return folder


GOOD = {'color.jpg', 'grey.png', 'deep.png', 'clear.png', 'small.bmp',
        'still.gif', 'moving.gif#0', 'moving.gif#1', 'moving.gif#2'}
BAD = {'cut.jpg', 'empty.png', 'text.jpg', 'broken.mp4'}


def write_boxes(path: Path, boxes: dict) -> str:
    path.write_text(json.dumps(boxes))
    return str(path)


def arguments(saved: tuple[str, str], *args) -> list:
    """Of the command, on CPU; with the whole image as box."""
    boxes = ['--boxes', 'whole'] if 'pose.py' in saved[0] and \
        '--boxes' not in args else []
    return ['predict', *saved, '--device', 'cpu', *boxes, *map(str, args)]


def run(saved: dict, task: str, *args) -> int:
    return main(arguments(saved[task], *args))


def read(path: Path):
    return json.loads(path.read_text())


def names(folder: Path) -> set:
    """Files at any depth, hidden ones too."""
    return {p.relative_to(folder).as_posix()
            for p in folder.rglob('*') if p.is_file()}


def write_photos(folder: Path) -> Path:
    """Three images of one size and one of another."""
    for i, size in enumerate([(100, 120)] * 3 + [(90, 70)]):
        cv2.imwrite(str(folder / f'{i}.png'), smooth(i, *size))
    return folder
