# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Quickstart of segmentation: drawn streets in the layout of Cityscapes."""
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from numpy import ndarray

from ..visualization.drawing import paint
from ..visualization.figures import GAP, mosaic
from .runner import Quickstart, QuickstartResult
from .synthetic.scenes import make_scenes

SHOWN = 8  # number of images
HEIGHT = 224  # height of each image in pixels
CAPTION = 'image, truth (black: no label), prediction'


def beside(images: Sequence[ndarray]) -> ndarray:
    """Place images side by side, at equal height, with white gaps."""
    images = [
        cv2.resize(
            x, (round(HEIGHT * x.shape[1] / x.shape[0]), HEIGHT),
            interpolation=cv2.INTER_NEAREST) for x in images
    ]
    white = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    return np.hstack([x for image in images for x in (image, white)][:-1])


def draw_legend(names: Sequence[str], palette: Sequence,
                width: int) -> ndarray:
    """Draw the names of classes beside their colors, in rows."""
    step, height = 150, 28
    across = width // step
    rows = -(-len(names) // across)
    legend = np.full((height * rows, width, 3), 255, np.uint8)
    for i, (name, color) in enumerate(zip(names, palette)):
        x, y = GAP + step * (i % across), height * (i // across)
        cv2.rectangle(legend, (x, y + 5), (x + 18, y + 21), color[::-1], -1)
        cv2.putText(legend, name, (x + 24, y + 19), cv2.FONT_HERSHEY_SIMPLEX,
                    .5, (60, 60, 60), 1, cv2.LINE_AA)
    return legend


def draw(cfg: Config, checkpoint: str, out_dir: Path) -> list[Path]:
    """Draw validation images, their labels and predictions, in rows."""
    from mmengine.registry import DATASETS, init_default_scope
    from mmseg.apis import inference_model, init_model
    init_default_scope(cfg.default_scope)
    model = init_model(cfg.copy(), checkpoint, device=get_device())
    pipeline = [
        step for step in cfg.val_dataloader.dataset.pipeline
        if step.type in ('LoadImageFromFile', 'LoadAnnotations')
    ]
    dataset = DATASETS.build(
        dict(cfg.val_dataloader.dataset, pipeline=pipeline))
    palette, seen, rows = dataset.metainfo['palette'], set(), []
    for i in range(min(SHOWN, len(dataset))):
        data = dataset[i]
        found = inference_model(model, data['img_path']).pred_sem_seg
        found = found.data[0].cpu().numpy().astype(np.uint8)
        truth = data['gt_seg_map']
        seen |= {*np.unique(truth).tolist(), *np.unique(found).tolist()}
        rows.append(
            beside([
                data['img'],
                paint(truth, palette),
                paint(found, palette)
            ]))
    picture = mosaic(rows, CAPTION)
    classes = [c for c in sorted(seen) if c < len(palette)]
    legend = draw_legend([dataset.metainfo['classes'][c] for c in classes],
                         [palette[c] for c in classes], picture.shape[1])
    path = out_dir / 'predictions.png'
    cv2.imwrite(str(path), np.vstack([picture, legend]))
    return [path]


def next_commands(outcome: QuickstartResult) -> list[str]:
    """Return commands to evaluate, train longer and train on own data."""
    longer = f'{outcome.work_dir}_longer'
    return [
        f'python tools/test.py {outcome.config} {outcome.checkpoint} --tta',
        f'python tools/train.py {outcome.config} --work-dir {longer} '
        '--cfg-options train_cfg.max_iters=2000',
        'bash tools/quickstart.sh --task seg --data-root /path/to/cityscapes',
    ]


TASK = Quickstart(
    name='seg',
    config='seg/hrformer_t_synthetic_112x224.py',
    metric='mIoU',
    metric_label='mIoU',
    make_data=make_scenes,
    images=(600, 60),
    draw=draw,
    next_commands=next_commands,
    layout='Cityscapes: leftImg8bit/train and val with the images, '
    'gtFine/train and val with *_gtFine_labelTrainIds.png',
    needs=('leftImg8bit/train', 'leftImg8bit/val', 'gtFine/train',
           'gtFine/val'))
