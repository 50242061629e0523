# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""mmcv.ops without compiled ops computes what torchvision and PyTorch do."""
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from hrformer_mm.compat import ops

pytest.importorskip('mmcv')
SPEC = find_spec('mmcv')
COMPILED = PathFinder.find_spec('mmcv._ext', SPEC.submodule_search_locations)
CPU_AND_GPU = [
    'cpu',
    pytest.param(
        'cuda',
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(
                not torch.cuda.is_available(), reason='needs CUDA')
        ]),
]


@pytest.fixture(params=[
    'ours',
    pytest.param(
        'compiled',
        marks=pytest.mark.skipif(
            COMPILED is None, reason='mmcv has no compiled ops')),
])
def mmcv_ops(request, monkeypatch):
    """mmcv.ops on top of our functions, and on compiled ones if there."""
    if request.param == 'ours':
        for name in ('nms', 'roi_align', 'focal_loss'):
            monkeypatch.setattr(
                import_module(f'mmcv.ops.{name}'), 'ext_module', ops)
    return import_module('mmcv.ops')


def random_boxes(count: int = 60, seed: int = 0) -> Tensor:
    """Boxes of 5 to 40 pixels that overlap often."""
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * 30
    size = torch.rand(count, 2, generator=random) * 35 + 5
    return torch.cat((corner, corner + size), 1)


def random_scores(count: int = 60, seed: int = 1) -> Tensor:
    return torch.rand(
        count, generator=torch.Generator().manual_seed(seed)) + 1e-3


def slow_nms(boxes: Tensor, scores: Tensor, threshold: float,
             offset: int) -> list:
    """Greedy suppression, as its definition says."""
    kept: list = []
    area = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    for i in scores.argsort(descending=True).tolist():
        other = boxes[kept]
        size = (
            torch.minimum(boxes[i, 2:], other[:, 2:]) -
            torch.maximum(boxes[i, :2], other[:, :2]) + offset)
        common = size.clamp(0).prod(1)
        if not (common / (area[i] + area[kept] - common) > threshold).any():
            kept.append(i)
    return kept


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('threshold', [.3, .7])
def test_nms_is_that_of_torchvision(mmcv_ops, seed, threshold):
    boxes, scores = random_boxes(seed=seed), random_scores()
    dets, kept = mmcv_ops.nms(boxes, scores, iou_threshold=threshold)
    assert kept.equal(torchvision.ops.nms(boxes, scores, threshold))
    assert dets.equal(torch.cat((boxes, scores[:, None]), 1)[kept])
    assert 0 < len(kept) < len(boxes)


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_counts_the_last_pixel_with_offset(mmcv_ops, offset):
    boxes = random_boxes().round()
    kept = mmcv_ops.nms(boxes, random_scores(), .4, offset=offset)[1]
    assert kept.tolist() == slow_nms(boxes, random_scores(), .4, offset)
    pair = torch.tensor([[0., 0, 1, 1], [1, 0, 2, 1]])  # IoU 0, or 1 / 3
    kept = mmcv_ops.nms(pair, torch.tensor([.9, .8]), .3, offset=offset)[1]
    assert len(kept) == 2 - offset


def test_nms_drops_low_scores_and_limits_the_number(mmcv_ops):
    boxes, scores = random_boxes(), random_scores()
    kept = mmcv_ops.nms(boxes, scores, .7, score_threshold=.4, max_num=5)[1]
    everything = torchvision.ops.nms(boxes, scores, .7)
    assert kept.equal(everything[scores[everything] > .4][:5])
    assert len(kept) == 5


def test_nms_takes_arrays_half_precision_and_no_boxes(mmcv_ops, request):
    boxes, scores = random_boxes(), random_scores()
    dets, kept = mmcv_ops.nms(boxes.numpy(), scores.numpy(), .5)
    assert isinstance(dets, np.ndarray) and isinstance(kept, np.ndarray)
    assert kept.tolist() == torchvision.ops.nms(boxes, scores, .5).tolist()
    dets, kept = mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), .5)
    assert dets.shape == (0, 5) and kept.shape == (0, )
    if 'compiled' not in request.node.name:  # which has no such kernels
        for dtype in (torch.float16, torch.bfloat16):
            low, score = boxes.to(dtype), scores.to(dtype)
            dets, kept = mmcv_ops.nms(low, score, .5)
            assert dets.dtype == dtype and kept.equal(
                torchvision.ops.nms(low.float(), score.float(), .5))


@pytest.mark.parametrize('config', [
    dict(type='nms', iou_threshold=.5),
    dict(iou_threshold=.5, max_num=7),
    dict(type='nms', iou_threshold=.5, split_thr=10),
    dict(type='nms', iou_threshold=.5, class_agnostic=True),
    None,
], ids=['plain', 'max_num', 'split', 'agnostic', 'none'])  # yapf: disable
def test_batched_nms_is_that_of_torchvision(mmcv_ops, config):
    boxes, scores = random_boxes(), random_scores()
    classes = torch.arange(60) % 3
    dets, kept = mmcv_ops.batched_nms(boxes, scores, classes, config)
    if config is None:
        expected = scores.argsort(descending=True)
    elif config.get('class_agnostic'):
        expected = torchvision.ops.nms(boxes, scores, .5)
    else:
        expected = torchvision.ops.batched_nms(boxes, scores, classes, .5)
    assert kept.equal(expected[:(config or {}).get('max_num')])
    assert dets.equal(torch.cat((boxes, scores[:, None]), 1)[kept])


def align(function, size, *args, dtype=torch.float64, device='cpu'):
    """Features of random regions of two images, and the features' gradient.

    All inputs are multiples of 1/8, which all types of numbers hold.
    """
    random = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randint(9, shape, generator=random).to(device, dtype) / 8

    features = draw(2, 3, 12, 15).requires_grad_()
    image = (torch.arange(20) % 2)[:, None]
    rois = torch.cat((image, (random_boxes(20) - 4).round()), 1).to(features)
    out = function(features, rois, size, *args)
    (out * draw(*out.shape)).sum().backward()
    return out, features.grad


@pytest.mark.parametrize('device', CPU_AND_GPU)
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('size, scale, ratio', [((7, 7), .25, 0),
                                                ((3, 5), .25, 2), (2, 1., 0),
                                                ((14, 14), .125, 1)])
def test_roi_align_and_its_gradient_are_those_of_torchvision(
        mmcv_ops, size, scale, ratio, aligned, device):
    found = align(
        mmcv_ops.roi_align, size, scale, ratio, 'avg', aligned, device=device)
    expected = align(
        torchvision.ops.roi_align, size, scale, ratio, aligned, device=device)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        assert ours.abs().max() > .01


def test_the_gradient_of_roi_align_is_that_of_finite_differences():
    from mmcv.ops import roi_align
    features = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, .7, .3, 9.1, 8.2], [0, 2.2, 1, 3, 7]]).double()
    assert torch.autograd.gradcheck(
        lambda x: roi_align(x, rois, (2, 3), .5, 0, 'avg', True), features)


def test_the_layer_roi_align_serves_no_regions_and_half_precision(monkeypatch):
    module = import_module('mmcv.ops.roi_align')
    monkeypatch.setattr(module, 'ext_module', ops)
    layer = module.RoIAlign(7, .25)
    features = torch.rand(2, 3, 12, 15, requires_grad=True)
    layer(features, torch.zeros(0, 5)).sum().backward()
    assert features.grad.eq(0).all()
    for dtype in (torch.float16, torch.bfloat16):
        found = align(module.roi_align, 7, .25, dtype=dtype)
        expected = align(module.roi_align, 7, .25, dtype=torch.float32)
        for low, full in zip(found, expected):
            assert low.dtype == dtype
            torch.testing.assert_close(low.float(), full, atol=.02, rtol=.02)


def test_maximum_pooling_is_refused_in_one_line(monkeypatch):
    module = import_module('mmcv.ops.roi_align')
    monkeypatch.setattr(module, 'ext_module', ops)
    layer = module.RoIAlign(7, pool_mode='max')
    with pytest.raises(NotImplementedError, match="'avg'") as error:
        layer(torch.rand(1, 1, 8, 8), torch.tensor([[0., 0, 0, 4, 4]]))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('gamma, alpha', [(2., .25), (0., .5), (.5, .9)])
def test_the_focal_loss_is_that_of_torchvision(monkeypatch, reduction, gamma,
                                               alpha):
    module = import_module('mmcv.ops.focal_loss')
    monkeypatch.setattr(module, 'ext_module', ops)
    target = torch.tensor([0, 1, 2, 3, 3])  # 3 is the background
    results = []
    for compute in ('mmcv', 'torchvision'):
        x = torch.linspace(-9, 9, 15, dtype=torch.float64).view(5, 3)
        x.requires_grad_()
        if compute == 'mmcv':
            loss = module.sigmoid_focal_loss(x, target, gamma, alpha, None,
                                             reduction)
        else:
            hot = torch.nn.functional.one_hot(target, 4)[:, :3].to(x)
            loss = torchvision.ops.sigmoid_focal_loss(x, hot, alpha, gamma)
            loss = dict(
                none=loss, sum=loss.sum(), mean=loss.sum() / 5)[reduction]
        weight = torch.arange(loss.numel()).view(loss.shape) + 1.
        (loss * weight).sum().backward()
        results.append((loss, x.grad))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_focal_loss_weights_classes_and_survives_large_logits(monkeypatch):
    module = import_module('mmcv.ops.focal_loss')
    monkeypatch.setattr(module, 'ext_module', ops)
    target, weight = torch.tensor([0, 1, 2]), torch.tensor([3., 5.])
    x = torch.tensor([[-200., 200], [1, 2], [300, -300]], requires_grad=True)
    plain = module.sigmoid_focal_loss(x, target, .5, .25, None, 'none')
    loss = module.sigmoid_focal_loss(x, target, .5, .25, weight, 'none')
    assert (loss / plain).nanmean(1).tolist() == pytest.approx([3, 5, 1])
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(x.grad).all()


def test_without_torchvision_the_fix_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    with pytest.raises(ImportError, match='pip install torchvision'):
        ops.nms(random_boxes(), random_scores(), .5, 0)
