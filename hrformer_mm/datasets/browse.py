# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw the samples that a data pipeline feeds to the model.

Samples are drawn by the visualizers of the frameworks.
The function of each task takes a packed sample, enlarges small images, so that
lines stay thin, and passes it to the visualizer.
"""
from collections.abc import Callable
from copy import deepcopy
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from mmengine.runner import set_random_seed
from mmengine.visualization import Visualizer
from numpy import ndarray

from ..tasks import get_task
from ..visualization.figures import enlarge

HEIGHT = 400  # smaller images are enlarged to it
numbers = count()  # visualizers in a process need different names


def draw_pose(visualizer: Visualizer, image: ndarray, sample, path: str):
    """Draw the keypoints of a crop, and its heatmaps beside it."""
    sample, enlarged = deepcopy(sample), enlarge(image, HEIGHT)
    zoom, image = len(enlarged) / len(image), enlarged
    instances = sample.gt_instances
    instances.transformed_keypoints = zoom * instances.transformed_keypoints
    if instances.keypoints_visible.ndim == 3:  # includes target weights
        instances.keypoints_visible = instances.keypoints_visible[..., 0]
    visualizer.line_width, visualizer.radius = 4, 6  # visible on a sheet
    visualizer.add_datasample(
        '', image, sample, draw_pred=False, draw_heatmap=True, out_file=path)
    drawn = cv2.imread(path)
    if len(drawn) > len(image):  # heatmaps below, except in evaluation
        cv2.imwrite(path, np.hstack(np.vsplit(drawn, 2)))


def draw_seg(visualizer: Visualizer, image: ndarray, sample, path: str):
    """Draw the labels over an image, with their names."""
    from mmengine.structures import PixelData
    sample, image = deepcopy(sample), enlarge(image, HEIGHT)
    labels = sample.gt_sem_seg.data
    sample.gt_sem_seg = PixelData(
        data=F.interpolate(labels[None].float(), image.shape[:2])[0].long())
    visualizer.add_datasample(
        '', image, sample, draw_pred=False, out_file=path)


def draw_cls(visualizer: Visualizer, image: ndarray, sample, path: str):
    """Draw the name of its class on an image."""
    visualizer.visualize_cls(
        enlarge(image, HEIGHT), sample, out_file=path)


def draw_det(visualizer: Visualizer, image: ndarray, sample, path: str):
    """Draw the boxes and masks of an image, with the names of classes."""
    sample, enlarged = deepcopy(sample), enlarge(image, HEIGHT)
    instances = sample.gt_instances
    size = enlarged.shape[:2]
    boxes = instances.bboxes
    zoom = len(enlarged) / len(image)
    instances.bboxes = zoom * getattr(boxes, 'tensor', boxes)
    if 'masks' in instances:
        masks = instances.masks.resize(size).to_ndarray()
        instances.masks = masks.astype(bool)
    visualizer.add_datasample(
        '', enlarged, sample, draw_pred=False, out_file=path)


DRAW: dict[str, Callable] = dict(
    pose=draw_pose, seg=draw_seg, cls=draw_cls, det=draw_det)


def build_visualizer(cfg: Config, metainfo: dict) -> Visualizer:
    visualizer = VISUALIZERS.build(
        dict(cfg.visualizer, vis_backends=None,
             name=f'browse_{next(numbers)}'))  # yapf: disable
    if 'keypoint_colors' in metainfo:  # MMPose's copies fields from it
        visualizer.set_dataset_meta(metainfo)
    else:
        visualizer.dataset_meta = metainfo
    return visualizer


def browse(cfg: Config,
           loader: str = 'train_dataloader',
           number: int = 12,
           seed: int = 0) -> list[ndarray]:
    """Draw samples of a data loader after all of its transforms.

    Transforms inside the model (normalisation, Mixup) are not applied.

    Args:
        cfg: Config.
        loader: Key of the data loader.
        number: Maximum number of samples, which are chosen at random.
        seed: Seed of the choice and of the transforms.

    Returns:
        BGR images [H, W, 3] of type uint8.

    Raises:
        ValueError: If the config has no such loader, or no known scope.
    """
    task = get_task(cfg)
    if not cfg.get(loader):
        raise ValueError(f'{cfg.filename} has no {loader} to browse')
    init_default_scope(task.scope)
    settings = deepcopy(cfg[loader].dataset)
    if task.name == 'pose':
        settings.pipeline[-1].pack_transformed = True
    dataset = DATASETS.build(settings)
    visualizer = build_visualizer(cfg, dataset.metainfo)
    set_random_seed(seed)
    chosen = np.random.permutation(len(dataset))[:number]
    images = []
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / 'sample.png')
        for i in chosen.tolist():
            item = dataset[i]
            image = item['inputs'].numpy().transpose(1, 2, 0)[..., ::-1]
            DRAW[task.name](visualizer, image, item['data_samples'], path)
            images.append(cv2.imread(path))
    return images
