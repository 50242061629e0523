# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The recipe of segmentation: optimizer, schedule, transforms, testing."""
import numpy as np
import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import (
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    init_default_scope,
)
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.testing import assert_close

from hrformer_mm.zoo import build_model

RATES = {  # stochastic depth
    'hrformer_s_cityscapes_512x1024': 0.2,
    'hrformer_b_cityscapes_512x1024': 0.4,
    'hrformer_b_cityscapes_512x1024_w15': 0.4,
    'hrformer_s_pascal-context_520x520': 0.2,
    'hrformer_b_pascal-context_520x520': 0.2,
    'hrformer_b_pascal-context_520x520_w15': 0.3,
    'hrformer_b_coco-stuff_520x520_w15': 0.2,
    'hrformer_b_ade20k_520x520_w13': 0.2,
    'hrnet_w48_cityscapes_512x1024': 0.,
}
LENGTHS = {
    'cityscapes_512x1024': (80000, 1000, 8),
    'pascal-context_520x520': (60000, 5000, 16),
    'coco-stuff_520x520': (60000, 5000, 16),
    'ade20k_520x520': (150000, 10000, 16),
}


def load(name: str) -> Config:
    init_default_scope('mmseg')
    return Config.fromfile(CONFIGS / f'seg/{name}.py')


@pytest.fixture(scope='module')
def cfg():
    return load('hrformer_s_cityscapes_512x1024')


@pytest.mark.parametrize('name', RATES)
def test_stochastic_depth_equals_that_of_the_scripts(name):
    assert load(name).model.backbone.drop_path_rate == RATES[name]


@pytest.mark.parametrize('data', LENGTHS)
def test_lengths_and_batches_equal_those_of_the_scripts(data):
    cfg = load(f'hrformer_s_{data}')
    iters, interval, batch = LENGTHS[data]
    assert cfg.train_cfg.max_iters == iters
    assert cfg.train_cfg.val_interval == interval
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_dataloader.batch_size == batch // 8
    crops = [step.crop_size for step in cfg.train_dataloader.dataset.pipeline
             if step.type == 'RandomCrop']
    assert crops == [cfg.model.data_preprocessor.size]


@pytest.mark.parametrize('data', LENGTHS)
def test_losses_equal_those_of_the_scripts(data):
    head = load(f'hrformer_b_{data}').model.decode_head
    main, aux = head.loss_decode, head.loss_aux
    assert aux.loss_weight == 0.4
    assert aux.type == 'hrformer_mm.PixelCrossEntropyLoss'
    if data == 'pascal-context_520x520':
        assert main == dict(type='hrformer_mm.PixelCrossEntropyLoss')
    else:
        assert main.type == 'hrformer_mm.OHEMCrossEntropyLoss'
        assert (main.thresh, main.min_kept) == (0.9, 100000)
    weighted = data == 'cityscapes_512x1024'
    assert ('class_weight' in main) == ('class_weight' in aux) == weighted


def learning_rates(cfg, steps, total):
    """Factors of the learning rate at some steps of the built schedule."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.)
    schedule = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler, end=total),
        default_args=dict(optimizer=optimizer))
    rates = {}
    for step in range(max(steps) + 1):
        if step in steps:
            rates[step] = optimizer.param_groups[0]['lr']
        optimizer.step()
        schedule.step()
    return rates


def test_learning_rate_equals_the_official_one(cfg):
    total = 6000  # the Runner gives max_iters
    steps = (0, 1, 1499, 1500, 1501, total // 2, total - 1)
    for step, rate in learning_rates(cfg, steps, total).items():
        want = 1 - (1 - step / 1500) * (1 - 1e-6) if step < 1500 else (
            1 - (step - 1500) / (total - 1500))**0.9
        assert rate == pytest.approx(want, rel=1e-9), step


def test_only_weights_of_layers_have_weight_decay(cfg):
    model = build_model(cfg)
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=cfg.optim_wrapper.constructor,
            optim_wrapper_cfg=dict(
                type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer),
            paramwise_cfg=cfg.optim_wrapper.paramwise_cfg))(model)
    groups = wrapper.optimizer.param_groups
    assert len(groups) == 3  # tables have their own
    decay = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    for name, p in model.named_parameters():
        weighs = name.endswith('.weight') and p.ndim > 1
        assert decay[id(p)] == (0.01 if weighs else 0.), name
    assert len(decay) == len(list(model.parameters()))
    assert {g['lr'] for g in groups} == {1e-4}


def test_merged_parameter_groups_update_like_separate_ones():
    """Both constructors, three steps of AdamW: exactly equal weights."""
    from hrformer_mm.engine.optim import FewGroupsConstructor
    results = []
    for kind in (FewGroupsConstructor, DefaultOptimWrapperConstructor):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4),
            torch.nn.Linear(4, 2))
        wrapper = kind(
            dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.5)),
            dict(norm_decay_mult=0., bias_decay_mult=0.))(model)
        for _ in range(3):
            wrapper.update_params(model(torch.randn(5, 3)).square().mean())
        results.append((model.state_dict(),
                        len(wrapper.optimizer.param_groups)))
    (mine, few), (theirs, many) = results
    assert (few, many) == (2, 6)
    assert_close(mine, theirs, rtol=0, atol=0)


def transform(image, label=None, **kwargs):
    results = dict(img=image, img_shape=image.shape[:2], seg_fields=[])
    if label is not None:
        results.update(gt_seg_map=label, seg_fields=['gt_seg_map'])
    init_default_scope('mmseg')
    return TRANSFORMS.build(kwargs)(results)


def noise(height=40, width=60):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), 'u1')


def test_scale_and_aspect_stay_in_their_ranges():
    sizes = np.array([
        transform(noise(), noise()[..., 0],
                  type='hrformer_mm.RandomScaleAspect')['gt_seg_map'].shape
        for _ in range(200)
    ])
    scale = np.sqrt(sizes.prod(1) / (40 * 60))
    aspect = (sizes[:, 1] / 60) / (sizes[:, 0] / 40)
    assert 0.45 < scale.min() < 0.7 and 1.8 < scale.max() <= 2.
    assert 0.85 < aspect.min() < 0.93 and 1.07 < aspect.max() < 1.15


def test_scaling_keeps_labels_and_their_alignment():
    label = noise()[..., 0] % 5
    out = transform(
        noise(), label, type='hrformer_mm.RandomScaleAspect', scale=(2, 2),
        aspect=(1, 1))
    assert out['img'].shape == (80, 120, 3)
    assert out['img_shape'] == out['gt_seg_map'].shape == (80, 120)
    assert (out['gt_seg_map'] == label.repeat(2, 0).repeat(2, 1)).all()


def test_brightness_adds_one_number_within_bounds():
    image = noise()
    shifts = set()
    for _ in range(200):
        out = transform(image, type='hrformer_mm.RandomBrightness')['img']
        inside = (image > 10) & (image < 245)
        change = np.unique(out[inside].astype(int) - image[inside])
        assert len(change) == 1 and out.dtype == np.uint8
        shifts.add(int(change[0]))
    assert shifts <= set(range(-10, 11)) and {-10, 10} <= shifts


@pytest.mark.parametrize('scale, size', [(0.75, (30, 45)), (1., (40, 60)),
                                         (1.25, (50, 75))])
def test_scales_for_testing_align_corners(scale, size):
    image = noise()
    out = transform(image, type='hrformer_mm.ScaleAligned', scale=scale)
    assert out['img'].shape == (*size, 3) and out['img_shape'] == size
    for y in (0, -1):
        for x in (0, -1):
            assert_close(out['img'][y, x], image[y, x].astype(np.float32))


def padded(seed, height=20, width=30, size=(32, 48)):
    torch.manual_seed(seed)
    init_default_scope('mmseg')
    model = MODELS.build(
        dict(
            type='hrformer_mm.RandomPadPreProcessor', size=size,
            mean=[120.] * 3, std=[50.] * 3))
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(
        data=torch.ones(1, height, width, dtype=torch.long))
    image = torch.full((3, height, width), 200, dtype=torch.uint8)
    return model(dict(inputs=[image], data_samples=[sample]), training=True)


def test_small_images_are_padded_at_a_random_position():
    places = set()
    for seed in range(30):
        out = padded(seed)
        image, sample = out['inputs'][0], out['data_samples'][0]
        label = sample.gt_sem_seg.data[0]
        left, right, top, bottom = sample.padding_size
        assert (left + right, top + bottom) == (18, 12)
        inside = torch.zeros(32, 48, dtype=torch.bool)
        inside[top:32 - bottom, left:48 - right] = True
        assert ((label == 1) == inside).all()
        assert ((label == 255) == ~inside).all()
        assert_close(image[:, inside], torch.full((3, 600), 1.6))
        assert not image[:, ~inside].any()
        places.add((left, top))
    assert len(places) > 15


def test_images_of_full_size_are_not_padded():
    out = padded(0, 32, 48)
    assert_close(out['inputs'][0], torch.full((3, 32, 48), 1.6))


class Views(torch.nn.Module):
    """Gives each view's logits back."""

    def __init__(self, threshold=0.5):
        super().__init__()
        self.decode_head = torch.nn.Module()
        self.decode_head.threshold = threshold

    def test_step(self, data):
        samples = []
        for logits, sample in zip(data['inputs'], data['data_samples']):
            sample.seg_logits = PixelData(data=logits.clone())
            samples.append(sample)
        return samples


def merged(views, **kwargs):
    from hrformer_mm.models.segmentation import LogitsTTAModel
    model = LogitsTTAModel(module=Views(**kwargs))
    assert isinstance(model, BaseTTAModel)
    data = dict(
        inputs=[[view] for view in views],
        data_samples=[[SegDataSample()] for _ in views])
    with torch.no_grad():
        return model.test_step(data)[0]


def test_views_are_merged_by_their_logits():
    views = 5 * torch.randn(6, 3, 4, 5)
    out = merged(list(views))
    assert_close(out.seg_logits.data, views.mean(0))
    assert_close(out.pred_sem_seg.data[0], views.sum(0).argmax(0))
    by_probability = views.softmax(1).mean(0).argmax(0)
    assert (out.pred_sem_seg.data[0] != by_probability).any()


def test_views_of_one_logit_are_merged_by_their_probabilities():
    views = torch.rand(4, 1, 3, 3)
    out = merged(list(views), threshold=0.4)
    assert_close(out.pred_sem_seg.data, (views.mean(0) > 0.4).long())


@pytest.mark.parametrize('name, scales', [
    ('hrformer_b_cityscapes_512x1024', [0.75, 1, 1.25]),
    ('hrformer_b_cityscapes_512x1024_w15',
     [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]),
    ('hrformer_b_ade20k_520x520_w13', [0.75, 1, 1.25]),
])
def test_scales_equal_the_official_ones(name, scales):
    views, flips = load(name).tta_pipeline[-1].transforms[:2]
    assert [view.scale for view in views] == scales
    assert [flip.prob for flip in flips] == [0., 1.]


@pytest.mark.parametrize('data', LENGTHS)
def test_images_are_resized_as_in_the_official_test(data):
    pipeline = load(f'hrformer_s_{data}').val_dataloader.dataset.pipeline
    names = [step.type for step in pipeline]
    if data == 'cityscapes_512x1024':
        assert 'Resize' not in names
        return
    assert names.index('Resize') < names.index('LoadAnnotations')
    out = transform(noise(48, 64), **pipeline[names.index('Resize')])
    assert out['img'].shape == (520, 693, 3)
