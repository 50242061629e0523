# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check datasets of MMPose: annotations of keypoints, and images.

Files in COCO format are checked entry by entry. For other formats, the samples
of the dataset are checked.
"""
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import METRICS

from ...utils.dataset_leaves import Leaf, class_of, type_name
from .coco_file import Format, read_annotations
from .coco_pose import Asked, CocoCheck, find_unreadable
from .common import (
    Problem,
    Summary,
    check_images,
    guarded,
    skip,
    spread_samples,
    try_build,
)
from .metainfo import (
    check_metainfo,
    check_unpaired,
    describe_pairs,
    names_of,
    read_metainfo,
)

WHOLE_BODY = ('keypoints', 'foot_kpts', 'face_kpts', 'lefthand_kpts',
              'righthand_kpts')
# Fields of annotations that datasets with their own parse_data_info read;
# unlisted ones read no box.
READS: dict[str, dict[str, Any]] = dict(
    BaseCocoStyleDataset=dict(),
    CocoWholeBodyDataset=dict(
        points=WHOLE_BODY,
        needed=('id', 'image_id', 'category_id', 'num_keypoints', 'iscrowd',
                'segmentation')),
    CocoWholeBodyFaceDataset=dict(points=('face_kpts', ), box='face_box'),
    HumanArt21Dataset=dict(points=('keypoints_21', )),
    JhmdbDataset=dict(needed=('id', 'image_id')),
    PanopticHand2DDataset=dict(needed=('id', 'image_id')),
    PoseTrack18VideoDataset=dict(needed=('id', 'image_id')))



def metrics_of(cfg: Config, loader: str) -> Iterator[Mapping]:
    """Yield the metrics of a data loader; for training, those of val."""
    key = loader.replace('dataloader', 'evaluator')
    found = cfg.get(key.replace('train', 'val')) or ()
    for metric in [found] if isinstance(found, Mapping) else found:
        inside = metric.get('metrics', metric)
        yield from [inside] if isinstance(inside, Mapping) else inside


def asked_of(cfg: Config, loader: str) -> Asked:
    """Return the requirements of the metrics of a data loader."""
    from mmpose.evaluation import CocoMetric, PoseTrack18Metric
    keys: set[str] = set()
    sigmas = False
    for metric in metrics_of(cfg, loader):
        kind = class_of(metric, cfg.default_scope, METRICS)
        if not kind or not issubclass(kind, CocoMetric) or (
                metric.get('format_only')):
            continue
        sigmas = sigmas or not metric.get('gt_converter')
        if issubclass(kind, PoseTrack18Metric):
            continue
        keys.add('category_id')
        keys |= {'area'} if metric.get('use_area', True) else set()
        if metric.get('iou_type') == 'keypoints_crowd':
            keys.add('num_keypoints')
    return Asked(tuple(sorted(keys)), sigmas, bool(keys))


def format_of(leaf: Leaf, names: Sequence[str], published: bool) -> Format:
    """Return the fields of annotations that a dataset reads."""
    for base in leaf.kind.__mro__ if leaf.kind else ():
        if 'parse_data_info' in vars(base):
            own = READS.get(base.__name__, dict(box='',
                                                needed=('id', 'image_id')))
            strict = type_name(leaf.cfg) == 'CocoDataset' or not published
            return Format(names, strict=strict, **own)
    return Format(names)


def check_head(cfg: Config, leaf: Leaf, names: Sequence[str]
               ) -> Iterator[Problem]:
    """Compare the number of keypoints with that of the head."""
    points = len(names)
    for step in leaf.steps():
        if str(step.get('type')).endswith('KeypointConverter'):
            points = step.get('num_keypoints', points)
    for wrapper in leaf.wrappers:  # may define its own keypoints
        if wrapper.get('metainfo'):
            info, _ = read_metainfo(replace(leaf, cfg=wrapper))
            points = len(info['keypoint_info'])
    head = cfg.model.get('head') or {}
    outputs = head.get('out_channels', points)
    if outputs != points:
        yield Problem('model.head.out_channels', f'is {outputs}, but the '
                      f'dataset has {points} keypoints')


def check_samples(dataset: Any, leaf: Leaf, names: Sequence[str],
                  limit: int | None, workers: int) -> Summary:
    """Check the samples of a dataset of any format."""
    summary = Summary(classes=dict.fromkeys(names, 0), kind='keypoints')
    infos = [
        dataset.get_data_info(i) for i in spread_samples(len(dataset), limit)
    ]
    if infos and 'img_path' not in infos[0]:
        return skip(f'{leaf.name} does not name image files')
    if not infos:
        summary.problems.append(Problem(leaf.key, 'has no samples'))
    for info in infos:
        points = np.asarray(info.get('keypoints', ()), float)
        seen = np.asarray(info.get('keypoints_visible', ()), float)
        seen = seen.reshape(-1, *seen.shape[-1:])[:, :len(names)]
        if points.ndim == 3 and points.shape[1] != len(names):
            summary.problems.append(
                Problem(str(info['img_path']), f'has {points.shape[1]} '
                        f'keypoints, but the dataset has {len(names)}'))
        elif points.ndim == 3 and seen.shape[-1] == len(names):
            for name, count in zip(names, (seen > 0).sum(0).tolist()):
                summary.classes[name] += count
    paths = list(dict.fromkeys(str(info['img_path']) for info in infos))
    summary.counts = {'images': len(paths), 'instances': len(infos)}
    if not leaf.foreign_loading():
        check_images(paths, workers, summary, leaf)
    return summary


def is_coco(leaf: Leaf, content: Any) -> bool:
    """Whether a dataset reads its file in COCO format."""
    from mmpose.datasets.datasets.base import BaseCocoStyleDataset as Base
    return isinstance(content, Mapping) and 'images' in content and (
        getattr(leaf.kind, '_load_annotations') is Base._load_annotations)


def check_file(cfg: Config, leaf: Leaf, names: Sequence[str], published: bool,
               limit: int | None, workers: int) -> Summary:
    """Check a dataset by its file if it is in COCO format, or its samples."""
    root = leaf.cfg.get('data_root') or ''
    source = Path(root, str(leaf.cfg.get('ann_file') or ''))
    content: Any = None
    if source.suffix.lower() == '.json':
        try:
            content = read_annotations(source)
        except ValueError as error:
            return Summary(problems=[
                Problem(str(source), str(error).removeprefix(f'{source} '))])
    dataset, problems = try_build(leaf)
    if is_coco(leaf, content):
        check = CocoCheck(leaf, content, source, dataset,
                          format_of(leaf, names, published),
                          asked_of(cfg, leaf.loader))
        summary = check.run(limit, workers)
        if dataset is None and not summary.problems:
            summary.problems += [*find_unreadable(leaf, check.found, source)
                                 ] or problems
        return summary
    if dataset is None:
        return Summary(problems=problems)
    return check_samples(dataset, leaf, names, limit, workers)


def check_leaf(cfg: Config, leaf: Leaf, limit: int | None,
               workers: int) -> Summary:
    """Check one dataset, and compare the head with it."""
    from mmpose.datasets.datasets.base import BaseCocoStyleDataset
    if leaf.kind is None:  # training fails in the same way
        return Summary(problems=try_build(leaf)[1])
    if not issubclass(leaf.kind, BaseCocoStyleDataset):
        return skip(f'{leaf.name} is not of keypoints in images')
    try:
        info, published = read_metainfo(leaf)
    except ValueError as error:
        return Summary(problems=[Problem(leaf.key, str(error))])
    names = names_of(info)
    summary = check_file(cfg, leaf, names, published, limit, workers)
    if summary.skipped:
        return summary
    faults = [*check_metainfo(info, asked_of(cfg, leaf.loader).sigmas)]
    certain = [f for f in faults if f.fatal or not published]
    summary.warnings[:0] = [f for f in faults if f not in certain]
    summary.problems[:0] = [*certain, *check_head(cfg, leaf, names)]
    summary.notes.append(describe_pairs(info))
    unpaired = check_unpaired(info)
    if unpaired:
        summary.warnings.append(unpaired)
    return summary


def check_leaves(cfg: Config, leaves: Sequence[Leaf], limit: int | None,
                 workers: int) -> dict[str, Summary]:
    """Check datasets, and compare the head with them."""
    return {
        leaf.key: guarded(partial(check_leaf, cfg, leaf, limit, workers))
        for leaf in leaves
    }
