# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw a contact sheet of annotated samples of a dataset.

Files are read as in the checks, so data that training fails on can be
inspected. Unreadable samples are skipped.
"""
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from numpy import ndarray

from ...tasks import get_task
from ...utils.cli import one_line
from ...utils.dataset_leaves import Leaf, datasets_of
from ...visualization.drawing import (
    draw_box,
    draw_lines,
    draw_regions,
    draw_skeleton,
)
from ...visualization.figures import enlarge, mosaic
from .common import spread_samples

SHOWN = 24  # maximum number of samples
SMALLEST = 330  # minimum height to draw annotations at, for thin lines
HEIGHT = 240  # maximum height of a row of the sheet
FALLBACK = (60, 60, 230)  # colour if the dataset has none


def draw_people(image: ndarray, infos: Sequence[Mapping],
                style: Mapping) -> ndarray:
    """Draw boxes and keypoints of one image."""
    drawn = enlarge(image, SMALLEST)
    zoom = drawn.shape[0] / image.shape[0]
    for info in infos:
        height = image.shape[0] / 2
        for box in np.reshape(info.get('bbox', ()), (-1, 4)):
            draw_box(drawn, zoom * box)
            height = box[3] - box[1]
        points = np.asarray(info['keypoints'], float)
        seen = np.asarray(info['keypoints_visible'], float)
        for one, visible in zip(points, seen.reshape(*points.shape[:2], -1)):
            draw_skeleton(drawn, zoom * one[:, :2], visible[:, 0] > 0,
                          scale=zoom * height, **style)
    return drawn


def style_of(info: Mapping) -> dict[str, list]:
    """Return the links and BGR colours of keypoints."""
    points = list(info['keypoint_info'].values())
    links = list(info['skeleton_info'].values())
    number = {point['name']: i for i, point in enumerate(points)}

    def colors(items: Sequence[Mapping]) -> list:
        return [tuple(item.get('color', FALLBACK[::-1]))[::-1]
                for item in items]  # yapf: disable

    return dict(links=[[number[end] for end in link['link']]
                       for link in links],
                link_colors=colors(links),
                point_colors=colors(points))  # yapf: disable


def pose_tiles(leaf: Leaf) -> Iterator[ndarray | None]:
    """Yield images with boxes and keypoints; ``None`` if unreadable."""
    from .metainfo import read_metainfo
    style, dataset = style_of(read_metainfo(leaf)[0]), leaf.build()
    of_image: dict[str, list[Mapping]] = {}
    for info in dataset.data_list:
        if 'keypoints' in info and isinstance(info.get('img_path'), str):
            of_image.setdefault(info['img_path'], []).append(info)
    paths = list(of_image)
    for i in spread_samples(len(paths), SHOWN):
        image = cv2.imread(paths[i])
        yield None if image is None else draw_people(
            image, of_image[paths[i]], style)


def seg_tiles(leaf: Leaf) -> Iterator[ndarray | None]:
    """Yield images overlaid with labels; ``None`` if unreadable."""
    from .seg import try_read
    dataset = leaf.build()
    names, palette = (dataset.metainfo[k] for k in ('classes', 'palette'))
    for i in spread_samples(len(dataset), SHOWN):
        info = dataset.get_data_info(i)
        image = cv2.imread(info['img_path'])
        label, _ = try_read(info.get('seg_map_path', ''))
        if image is None or label is None or label.shape != image.shape[:2]:
            yield None
            continue
        label = label.astype('u1')
        if dataset.reduce_zero_label:
            label = label - np.uint8(1)  # 0 becomes 255
        if dataset.label_map:
            table = np.arange(256, dtype=np.uint8)
            table[list(dataset.label_map)] = list(dataset.label_map.values())
            label = table[label]
        yield draw_regions(
            enlarge(image, SMALLEST),
            enlarge(label, SMALLEST, cv2.INTER_NEAREST), palette, names)


def cls_tiles(leaf: Leaf) -> Iterator[ndarray | None]:
    """Yield images with the names of classes; ``None`` if unreadable."""
    from .cls import classes_of, sample_of
    dataset = leaf.build()
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    for i in spread_samples(len(dataset), SHOWN):
        info = sample_of(dataset, i)
        image = info.get('img')
        if isinstance(info.get('img_path'), str):
            image = cv2.imread(info['img_path'])
        words = [str(names[x]) if x < len(names) else f'class {x}'
                 for x in classes_of(info)]
        yield None if image is None else draw_lines(
            np.ascontiguousarray(image), [', '.join(words)])


def det_tiles(leaf: Leaf) -> Iterator[ndarray | None]:
    """Yield images with boxes and masks; ``None`` if unreadable."""
    from .det import draw_labels
    dataset = leaf.build()
    for i in spread_samples(len(dataset), SHOWN):
        info = dataset.get_data_info(i)
        image = cv2.imread(info['img_path'])
        yield None if image is None else draw_labels(
            enlarge(image, SMALLEST), info['instances'],
            max(1., SMALLEST / len(image)))


TILES: dict[str, Callable] = dict(
    pose=pose_tiles, seg=seg_tiles, cls=cls_tiles, det=det_tiles)


def contact_sheet(cfg: Config, loader: str) -> ndarray | None:
    """Draw evenly spaced samples of a data loader with their annotations.

    Returns:
        The sheet, or ``None`` if no sample can be read.
    """
    leaves = datasets_of(cfg, loader)
    tiles: list[ndarray] = []
    for leaf in leaves:
        found = islice(TILES[get_task(cfg).name](leaf),
                       -(-SHOWN // len(leaves)))
        try:
            tiles += [tile for tile in found if tile is not None]
        except Exception as error:  # the checks report errors of the data
            print_log(f'{leaf.key} cannot be drawn: {one_line(error)}')
    if not tiles:
        return None
    return mosaic(tiles, f'{len(tiles)} annotated samples of {loader}',
                  height=HEIGHT)
