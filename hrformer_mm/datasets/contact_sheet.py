# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Annotated samples of a data set side by side, as they lie on disk.

Files are read as the checks read them, so data that training would stop at
can be looked at. A sample that cannot be read is left out.
"""
from itertools import islice
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from numpy import ndarray

from ..apis.drawing import draw_box, draw_lines, draw_regions, draw_skeleton
from ..quickstart.pictures import enlarge, mosaic
from .check import spread

SHOWN = 24  # samples
SMALLEST = 330  # height that annotations are drawn at, so that lines are fine
HEIGHT = 240  # of a row, at most
FALLBACK = (60, 60, 230)  # where a data set has no colour


def draw_instances(image: ndarray, annotations: Sequence[Mapping],
                   style: Mapping) -> ndarray:
    """Boxes and key points of one image."""
    drawn = enlarge(image, SMALLEST)
    zoom = drawn.shape[0] / image.shape[0]
    for annotation in annotations:
        x, y, w, h = annotation['bbox']
        points = np.array(annotation['keypoints'], float).reshape(-1, 3)
        draw_box(drawn, zoom * np.array([x, y, x + w, y + h]))
        draw_skeleton(drawn, zoom * points[:, :2], points[:, 2] > 0,
                      scale=zoom * h, **style)
    return drawn


def style_of(info: Mapping) -> Dict[str, List]:
    """Links and colours (blue, green, red) of key points."""
    points = list(info['keypoint_info'].values())
    links = list(info['skeleton_info'].values())
    number = {point['name']: i for i, point in enumerate(points)}

    def colors(items: Sequence[Mapping]) -> List:
        return [tuple(item.get('color', FALLBACK[::-1]))[::-1]
                for item in items]  # yapf: disable

    return dict(links=[[number[end] for end in link['link']]
                       for link in links],
                link_colors=colors(links),
                point_colors=colors(points))  # yapf: disable


def pose_tiles(dataset: Mapping) -> Iterator[Optional[ndarray]]:
    """Images of a COCO file with boxes and key points; none if unreadable."""
    from .check_pose import read_json, read_metainfo
    root = Path(dataset.get('data_root') or '')
    content = read_json(root / dataset['ann_file'])
    info = read_metainfo(dataset)
    style, length = style_of(info), 3 * len(info['keypoint_info'])
    of_image: Dict[int, List[dict]] = {}
    for annotation in content.get('annotations', ()):
        if len(annotation.get('keypoints', ())) == length and len(
                annotation.get('bbox', ())) == 4:
            of_image.setdefault(annotation['image_id'], []).append(annotation)
    images = [i for i in content['images'] if i['id'] in of_image]
    folder = root / dataset.get('data_prefix', {}).get('img', '')
    for i in spread(len(images), SHOWN):
        image = cv2.imread(str(folder / images[i]['file_name']))
        yield None if image is None else draw_instances(
            image, of_image[images[i]['id']], style)


def seg_tiles(dataset: Mapping) -> Iterator[Optional[ndarray]]:
    """Images under their labels; none if one of both is unreadable."""
    from .check_seg import try_read
    with DefaultScope.overwrite_default_scope('mmseg'):
        built = DATASETS.build(
            dict(dataset, pipeline=[], serialize_data=False))
    names, palette = (built.metainfo[k] for k in ('classes', 'palette'))
    for i in spread(len(built), SHOWN):
        info = built.get_data_info(i)
        image = cv2.imread(info['img_path'])
        label, _ = try_read(info.get('seg_map_path', ''))
        if image is None or label is None or label.shape != image.shape[:2]:
            yield None
            continue
        label = label.astype('u1')
        if built.reduce_zero_label:
            label = label - np.uint8(1)  # 0 becomes 255
        if built.label_map:
            table = np.arange(256, dtype=np.uint8)
            table[list(built.label_map)] = list(built.label_map.values())
            label = table[label]
        yield draw_regions(
            enlarge(image, SMALLEST),
            enlarge(label, SMALLEST, cv2.INTER_NEAREST), palette, names)


def cls_tiles(dataset: Mapping) -> Iterator[Optional[ndarray]]:
    """Images with the name of their class; none if unreadable."""
    from .check_cls import read_listing
    listing = read_listing(dataset)
    for i in spread(len(listing), SHOWN):
        path, label = listing.samples[i]
        image = cv2.imread(str(path))
        known = label < len(listing.names)
        name = listing.names[label] if known else f'class {label}'
        yield None if image is None else draw_lines(image, [str(name)])


TILES: Dict[str, Callable] = dict(
    mmpose=pose_tiles, mmseg=seg_tiles, mmpretrain=cls_tiles)


def contact_sheet(cfg: Config, loader: str) -> Optional[ndarray]:
    """Samples from all over a data loader, with their annotations.

    Gives None if none can be read.
    """
    dataset = cfg[loader].dataset
    tiles = [tile for tile in islice(TILES[cfg.default_scope](dataset), SHOWN)
             if tile is not None]  # yapf: disable
    if not tiles:
        return None
    return mosaic(tiles, f'{len(tiles)} annotated samples of {loader}',
                  height=HEIGHT)
