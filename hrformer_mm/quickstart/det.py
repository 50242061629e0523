# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Quickstart of detection: drawn people with masks in COCO's layout."""
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from ..apis.det import DetPredictor
from ..apis.images import to_frame
from ..visualization.figures import mosaic
from .runner import Quickstart, commands_by_epoch
from .synthetic.people import FILES, make_people

SHOWN = 12  # number of images
HEIGHT = 480  # height to draw at
CAPTION = 'predicted boxes with scores, and masks; white circles: labelled'


def draw(cfg: Config, checkpoint: str, out_dir: Path) -> list[Path]:
    """Draw a grid of validation images with the predictions.

    Corners of labelled boxes are small circles.
    """
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope(cfg.default_scope)
    predictor = DetPredictor(cfg, checkpoint)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    infos = [dataset.get_data_info(i)
             for i in range(min(SHOWN, len(dataset)))]
    images = []
    frames = [to_frame(info['img_path'], str(i), predictor.read)
              for i, info in enumerate(infos)]  # yapf: disable
    for info, (frame, found) in zip(infos, predictor.run(frames)):
        zoom = HEIGHT / len(frame.image)
        image = cv2.resize(predictor.draw(frame, found), None, fx=zoom,
                           fy=zoom)  # yapf: disable
        for instance in info['instances']:
            corners = np.reshape(instance['bbox'], (2, 2))
            for x in corners[:, 0]:
                for y in corners[:, 1]:
                    cv2.circle(image, (round(zoom * x), round(zoom * y)), 5,
                               (255, 255, 255), 2, cv2.LINE_AA)
        images.append(image)
    path = out_dir / 'predictions.png'
    cv2.imwrite(str(path), mosaic(images, CAPTION))
    return [path]


TASK = Quickstart(
    name='det',
    config='det/hrformer_t_synthetic_96x128_mask-rcnn.py',
    metric='coco/bbox_mAP',
    metric_label='box AP',
    make_data=make_people,
    images=(1000, 100),
    draw=draw,
    next_commands=partial(commands_by_epoch, 'det'),
    layout='COCO 2017: annotations/person_keypoints_train2017.json and '
    '_val2017.json, train2017/ and val2017/ with the images',
    needs=FILES,
    more_metrics={'coco/segm_mAP': 'mask AP'})
