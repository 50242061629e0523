# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Describe exported models for those who use the files."""
from collections.abc import Mapping
from typing import Any, cast

from mmengine.config import Config
from torch import nn

from .. import zoo
from ..tasks import get_task
from ..utils.config import bare_name
from ..utils.dataset_leaves import steps_of_test
from ..visualization.drawing import make_palette
from .postprocess import slides


def input_shape(cfg: Config, model: Any) -> tuple[int, int]:
    """Return height and width of the images that a config is for.

    Those of detectors are padded.

    Raises:
        ValueError: If its codec, test pipeline (classification) and file name
            do not have the size.
    """
    decoder = getattr(getattr(model, 'head', None), 'decoder', None)
    if decoder is not None:
        width, height = decoder.input_size
        return int(height), int(width)
    size = find_step(cfg, 'CenterCrop').get('crop_size') or find_step(
        cfg, 'Resize').get('scale')
    if get_task(cfg).name == 'cls' and size:
        width, height = (size, size) if isinstance(size, int) else size
        return height, width
    height, width = zoo.input_size(cfg.filename)
    step = divisor(model)
    return -(-height // step) * step, -(-width // step) * step


def divisor(model: Any) -> int:
    """Return the number that the sides of a detector's images divide by."""
    return getattr(model.data_preprocessor, 'pad_size_divisor', 1)


def find_step(cfg: Config, name: str) -> Mapping[str, Any]:
    """Return the step of the test pipeline with a name; empty if absent."""
    steps = steps_of_test(cfg)
    return next((s for s in steps if bare_name(s['type']) == name), {})


def describe(cfg: Config, model: nn.Module, meta: dict,
             shape: tuple[int, int] | None,
             post: bool) -> dict[str, Any]:
    """Return the metadata that a user of the file needs, as JSON values.

    Args:
        cfg: Config of the model.
        model: Model as built by its framework.
        meta: Metainfo of the training dataset.
        shape: Height and width, unless they are open.
        post: Whether the graph includes postprocessing.

    Returns:
        A dict; in it, ``fit`` says how the box or image is fitted to the
        input: the network sees the smallest area of its aspect ratio that
        contains it (``maximum``) or the largest area inside it
        (``minimum``), scaled by ``padding``. ``align`` is the share of the
        rest that is left of and above the image (default: 0.5).
    """
    task, normal = get_task(cfg).name, cast(Any, model.data_preprocessor)
    facts: dict[str, Any] = dict(
        task=task,
        post=post,
        shape=shape,
        mean=normal.mean.flatten().tolist(),
        std=normal.std.flatten().tolist(),
        # The attribute differs between frameworks.
        rgb=any(
            getattr(normal, word, False) for word in
            ('_channel_conversion', 'channel_conversion', 'to_rgb')),
        fit='minimum' if task == 'cls' else 'maximum',
        padding=1,
        udp=False)
    if task == 'pose':
        return dict(
            facts,
            names=[name for _, name in sorted(
                meta['keypoint_id2name'].items())],
            links=meta['skeleton_links'],
            padding=find_step(cfg, 'GetBBoxCenterScale').get('padding', 1.25),
            udp=find_step(cfg, 'TopdownAffine').get('use_udp', False))
    names = dict(seg='decode_head', det='bbox_head')
    head: Any = getattr(model, names.get(task, 'head'))
    count = head.num_classes
    facts['names'] = list(meta.get('classes') or map(str, range(count)))
    if task == 'cls':
        assert shape is not None  # only segmentation leaves sizes open
        edge = find_step(cfg, 'ResizeEdge').get('scale', shape[0])
        return dict(facts, padding=shape[0] / edge)
    if task == 'det':  # MMDetection pads at the right and below with zeros
        return dict(
            facts, align=0, border=facts['mean'][::-1 if facts['rgb'] else 1],
            score_thr=head.test_cfg.score_thr,
            iou_thr=head.test_cfg.nms.get('iou_threshold', .5))
    if slides(model):
        windows: Any = model.test_cfg
        facts['slide'] = {k: list(windows[k]) for k in ('crop_size', 'stride')}
    return dict(facts, palette=meta.get('palette') or make_palette(count))
