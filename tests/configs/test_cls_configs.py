# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The ImageNet configs: numbers of the official recipe, and a run of each."""
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import CONFIGS, last_scalars, run_training, tiny_config
from image_folders import SMALL_IMAGES, write_images
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    MODELS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    init_default_scope,
)

from hrformer_mm.checkpoints import convert

SIZES = {
    # size: channels, drop path, parameters
    't': ((18, 36, 72, 144), 0., 8_035_820),
    's': ((32, 64, 128, 256), 0., 13_544_882),
    'b': ((78, 156, 312, 624), 0.2, 50_320_098),
}
STEPS = 1251  # per epoch: 1,281,167 images, 8 GPUs, 128 each, last dropped


def load(size):
    init_default_scope('mmpretrain')
    return Config.fromfile(CONFIGS / f'cls/hrformer_{size}_imagenet_224.py')


@pytest.fixture(scope='module')
def cfg():
    return load('t')


@pytest.fixture(scope='module')
def model(cfg):
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('size', SIZES)
def test_configs_have_the_papers_size(size):
    channels, drop_path, parameters = SIZES[size]
    with torch.device('meta'):
        model = MODELS.build(load(size).model)
    assert model.neck.in_channels == channels
    assert model.backbone.drop_path_rate == drop_path
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize('size', SIZES)
def test_configs_upsample_like_the_official_classification_code(size):
    backbone = load(size).model.backbone
    assert backbone.upsample == 'nearest'
    assert backbone.get('rel_pos_bias', True)


def test_only_vectors_have_no_weight_decay(cfg, model):
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    decay = {
        id(p): group['weight_decay']
        for group in optimizer.param_groups for p in group['params']
    }
    assert len(decay) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        spared = p.ndim <= 1 or name.endswith('.bias')
        assert decay[id(p)] == (0. if spared else 0.05), name
    tables = [p for name, p in model.named_parameters()
              if name.endswith('relative_position_bias_table')]
    assert tables and all(decay[id(p)] == 0.05 for p in tables)


def test_optimizer_has_the_official_numbers(cfg, model):
    wrapper = build_optim_wrapper(
        model, dict(cfg.optim_wrapper, type='OptimWrapper'))
    optimizer = wrapper.optimizer
    assert type(optimizer) is torch.optim.AdamW
    for group in optimizer.param_groups:
        assert (group['lr'], group['betas'],
                group['eps']) == (1e-3, (0.9, 0.999), 1e-8)
    assert wrapper.clip_grad_kwargs == dict(max_norm=5.)
    assert cfg.optim_wrapper.type == 'hrformer_mm.AmpOptimWrapper'
    assert cfg.train_dataloader.batch_size * 8 == 1024
    assert cfg.auto_scale_lr.base_batch_size == 1024
    assert cfg.train_cfg.max_epochs == 300


def timm_rate(t, epoch_length):
    """timm's CosineLRScheduler with its ``warmup_prefix=False``."""
    total, warmup = 300 * epoch_length, 20 * epoch_length
    if t < warmup:
        return 1e-6 + t * (1e-3 - 1e-6) / warmup
    return 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * t / total))


class NoSteps(torch.optim.SGD):
    """Steps are counted, and nothing is trained."""

    def step(self):
        return None


def schedule(cfg, epoch_length=STEPS):
    """An optimizer with groups of lr 1e-3 and 1e-4, and its scheduler."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = NoSteps([dict(params=[w], lr=lr)
                         for w, lr in zip(weights, (1e-3, 1e-4))])
    # As the Runner does it: the end of training is the end of the schedule
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler, end=cfg.train_cfg.max_epochs),
        default_args=dict(optimizer=optimizer, epoch_length=epoch_length))
    return optimizer, scheduler


def advance(optimizer, scheduler):
    """Take a step and give the rates before it."""
    rates = [group['lr'] for group in optimizer.param_groups]
    optimizer.step()
    scheduler.step()
    return rates


def test_learning_rate_of_imagenet_equals_timms_cosine(cfg):
    _, scheduler = schedule(cfg)
    total, warmup = 300 * STEPS, 20 * STEPS
    for t in (0, 1, warmup - 1, warmup, total // 2, total - 1):
        assert 1e-3 * scheduler.ratio(t) == pytest.approx(
            timm_rate(t, STEPS), rel=1e-9)
    assert 1e-3 * scheduler.ratio(0) == pytest.approx(1e-6)
    assert 1e-3 * scheduler.ratio(total // 2) == pytest.approx(0.505e-3)
    # The cosine is 20 of 300 epochs old when the warm-up ends.
    assert 1e-3 * scheduler.ratio(warmup) == pytest.approx(0.98918306e-3)


def test_learning_rate_of_every_step_equals_timms(cfg):
    optimizer, scheduler = schedule(cfg, epoch_length=3)
    for t in range(900):
        full, tenth = advance(optimizer, scheduler)
        assert full == pytest.approx(timm_rate(t, 3), rel=1e-9)
        assert tenth == pytest.approx(timm_rate(t, 3) / 10, rel=1e-9)


def test_learning_rate_schedule_survives_a_resume(cfg):
    optimizer, scheduler = schedule(cfg)
    for _ in range(20):
        advance(optimizer, scheduler)
    resumed = schedule(cfg)
    resumed[1].load_state_dict(scheduler.state_dict())
    advance(*resumed)
    assert advance(*resumed)[0] == pytest.approx(timm_rate(21, STEPS))


def test_mixup_and_cutmix_are_equally_likely(cfg):
    model_cfg = dict(cfg.model.data_preprocessor, type='ClsDataPreprocessor',
                     batch_augments=cfg.model.train_cfg)
    mix = MODELS.build(model_cfg).batch_augments
    assert [(type(a).__name__, a.alpha) for a in mix.augments] == [
        ('Mixup', 0.8), ('CutMix', 1.0)]
    assert mix.augments[1].correct_lam
    # Every batch is mixed, by either with the same probability.
    assert mix.probs is None or list(mix.probs) == [0.5, 0.5]


def test_mixed_and_smoothed_loss_equals_timms(cfg):
    torch.manual_seed(0)
    classes, lam, eps = 1000, 0.3, 0.1
    logits = torch.randn(8, classes)
    labels = torch.randint(classes, (8, ))
    off = eps / classes
    smooth = torch.full((8, classes), off)
    smooth.scatter_(1, labels[:, None], 1 - eps + off)
    target = lam * smooth + (1 - lam) * smooth.flip(0)
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    hot = F.one_hot(labels, classes).float()
    loss = MODELS.build(cfg.model.head.loss)
    ours = loss(logits, lam * hot + (1 - lam) * hot.flip(0), avg_factor=8)
    torch.testing.assert_close(ours, expected)


def build_pipeline(dataloader):
    return {t['type']: TRANSFORMS.build(t)
            for t in dataloader.dataset.pipeline}


def test_training_pipeline_has_the_official_augmentation(cfg):
    steps = build_pipeline(cfg.train_dataloader)
    assert list(steps) == ['LoadImageFromFile', 'RandomResizedCrop',
                           'RandomFlip', 'RandAugment', 'RandomErasing',
                           'PackInputs']
    crop = steps['RandomResizedCrop']
    assert crop.scale == (224, 224)
    assert crop.crop_ratio_range == (0.08, 1.)
    assert crop.aspect_ratio_range == (3 / 4, 4 / 3)
    assert (crop.interpolation, crop.backend) == ('bicubic', 'pillow')
    assert steps['RandomFlip'].prob == 0.5
    augment = steps['RandAugment']  # rand-m9-mstd0.5-inc1
    assert (augment.magnitude_level, augment.magnitude_std,
            augment.num_policies, augment.total_level) == (9, 0.5, 2, 10)
    assert len(augment.policies) == 15
    assert all(t.prob == 0.5 for t in augment.transforms)
    warps = [t for t in augment.transforms if hasattr(t, 'interpolation')]
    assert len(warps) == 5
    assert all(t.interpolation == 'bicubic' for t in warps)
    erase = steps['RandomErasing']
    assert (erase.erase_prob, erase.mode) == (0.25, 'rand')
    assert (erase.min_area_ratio, erase.max_area_ratio) == (0.02, 1 / 3)
    assert erase.aspect_range == (3 / 10, 10 / 3)


def test_images_are_center_cropped_for_evaluation(cfg):
    steps = build_pipeline(cfg.test_dataloader)
    resize, crop = steps['ResizeEdge'], steps['CenterCrop']
    assert (resize.scale, resize.edge) == (256, 'short')
    assert (resize.interpolation, resize.backend) == ('bicubic', 'pillow')
    assert crop.crop_size == (224, 224)


def test_erased_pixels_are_normal_noise_after_normalising(cfg):
    # timm draws them after normalising; here it is done before.
    erase = build_pipeline(cfg.train_dataloader)['RandomErasing']
    prep = cfg.model.data_preprocessor
    assert list(erase.fill_color) == prep.mean[::-1]
    assert list(erase.fill_std) == prep.std[::-1]


def test_norms_are_not_synchronised_and_gpus_have_different_seeds(cfg):
    assert cfg.sync_bn is None
    assert cfg.randomness == dict(seed=0, diff_rank_seed=True)
    assert cfg.train_dataloader.drop_last


@pytest.mark.parametrize('size, layout', [
    ('t', 'labels'),
    pytest.param('t', 'folders', marks=pytest.mark.slow),
    pytest.param('s', 'labels', marks=pytest.mark.slow),
    pytest.param('b', 'folders', marks=pytest.mark.slow),
])
def test_configs_train_and_evaluate(size, layout, tmp_path):
    write_images(tmp_path / 'imagenet', layout)
    cfg = tiny_config(f'cls/hrformer_{size}_imagenet_224.py',
                      tmp_path / 'work', tmp_path / 'imagenet', **SMALL_IMAGES)
    runner = run_training(cfg)
    scalars = last_scalars(runner)
    assert runner.iter == 2
    assert math.isfinite(scalars['train/loss'])
    assert 0 <= scalars['val/accuracy/top1'] <= 100


def test_custom_images_are_fine_tuned_from_imagenet(tmp_path):
    write_images(tmp_path / 'images', 'folders')
    tiny = {'model.backbone.arch': 'tiny',
            'model.neck.in_channels': SIZES['t'][0]}
    trained = MODELS.build(load('t').model)
    state_dict, _ = convert(dict(trained.state_dict()), 'official-cls')
    weights = tmp_path / 'hrt.pth'
    torch.save(dict(model=state_dict), weights)
    cfg = tiny_config(
        'cls/custom_folder.py', tmp_path / 'work',
        tmp_path / 'images', load_from=str(weights), **tiny, **{
            'model.head.num_classes': 2,
            'model.data_preprocessor.num_classes': 2,
            'train_dataloader.dataset.pipeline.1.scale': 64,
            'default_hooks.checkpoint': None,
            'optim_wrapper.optimizer.lr': 0.,
        })
    runner = run_training(cfg)
    assert runner.model.head.fc.out_features == 2
    assert runner.train_loop.dataloader.dataset.CLASSES == ('n0', 'n1')
    given = trained.state_dict()
    for name, tensor in runner.model.named_parameters():
        if not name.startswith('head.'):
            assert torch.equal(tensor, given[name]), name
    assert 0 <= last_scalars(runner)['val/accuracy/top1'] <= 100
