# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Quickstart of pose estimation: drawn people in COCO's layout."""
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.device import get_device
from numpy import ndarray

from ..visualization.drawing import draw_skeleton
from ..visualization.figures import mosaic
from .runner import Quickstart, commands_by_epoch
from .synthetic.bodies import SKELETON
from .synthetic.people import FILES, make_people

# BGR: a person's left, right, and links between both.
COLORS = ((235, 150, 40), (40, 110, 245), (90, 200, 90))
LINKS = [(start - 1, end - 1) for start, end in SKELETON]
SEEN = 0.3  # minimum score of a keypoint to draw
SHOWN = 12  # number of images
HEIGHT = 660  # height to draw at; halved afterwards for smooth lines
CAPTION = 'predicted: blue left, orange right; white: labelled'


def side_index(*joints: int) -> int:
    """Return 0 for the left, 1 for the right, 2 for both or the nose."""
    sides = {2 if j == 0 else (j + 1) % 2 for j in joints}
    return sides.pop() if len(sides) == 1 else 2


def draw_truth(image: ndarray, points: ndarray, seen: Sequence[bool]):
    """Draw the labelled skeleton as thin white lines with dark borders."""
    where = np.round(points * 16).astype(int)
    for color, thick in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        for start, end in LINKS:
            if seen[start] and seen[end]:
                cv2.line(image, where[start].tolist(), where[end].tolist(),
                         color, thick, cv2.LINE_AA, 4)


def draw_image(model, people: list[dict]) -> ndarray:
    """Predict and draw the poses of an image in its labelled boxes."""
    from mmpose.apis import inference_topdown
    path = people[0]['img_path']
    boxes = np.concatenate([person['bbox'] for person in people])
    found = inference_topdown(model, path, boxes, 'xyxy')
    image = cv2.imread(path)
    zoom = HEIGHT / image.shape[0]
    image = cv2.resize(image, None, fx=zoom, fy=zoom,
                       interpolation=cv2.INTER_CUBIC)  # yapf: disable
    for person in people:
        draw_truth(image, zoom * person['keypoints'][0],
                   person['keypoints_visible'][0] > 0)
    colors = ([COLORS[side_index(*link)] for link in LINKS],
              [COLORS[side_index(joint)] for joint in range(17)])
    for person, box in zip(found, boxes):
        points = person.pred_instances
        draw_skeleton(image, zoom * points.keypoints[0],
                      points.keypoint_scores[0] > SEEN, LINKS, *colors,
                      zoom * (box[3] - box[1]))
    return image


def draw(cfg: Config, checkpoint: str, out_dir: Path) -> list[Path]:
    """Draw a grid of validation images with both kinds of skeletons.

    These are the predicted and the labelled ones.
    """
    from mmengine.registry import DATASETS
    from mmpose.apis import init_model
    model = init_model(cfg.copy(), checkpoint, device=get_device())
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    images = []
    for _, people in groupby((dataset.get_data_info(i)
                              for i in range(len(dataset))),
                             key=lambda person: person['img_id']):
        images.append(draw_image(model, list(people)))
        if len(images) == SHOWN:
            break
    path = out_dir / 'predictions.png'
    cv2.imwrite(str(path), mosaic(images, CAPTION))
    return [path]


TASK = Quickstart(
    name='pose',
    config='pose/hrformer_t_synthetic_112x84.py',
    metric='coco/AP',
    metric_label='AP',
    make_data=make_people,
    images=(1000, 150),
    draw=draw,
    next_commands=partial(commands_by_epoch, 'pose'),
    layout='COCO 2017 keypoints: annotations/person_keypoints_train2017.json '
    'and _val2017.json, train2017/ and val2017/ with the images',
    needs=FILES)
