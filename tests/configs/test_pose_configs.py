# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The COCO configs: numbers of the released recipe, and a run of each."""
import json
import re

import numpy as np
import pytest
import torch
from helpers import (
    CONFIGS,
    SMALL,
    last_scalars,
    run_training,
    tiny_config,
    write_tiny_coco,
)
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from mmengine.registry import (
    PARAM_SCHEDULERS,
    DefaultScope,
    init_default_scope,
)
from mmengine.runner import Runner

from hrformer_mm import zoo

pytest.importorskip('mmpose', reason='pose needs MMPose')
TESTED = re.compile(r'hrformer_[tsb]_coco_\d+x\d+(_udp|_dark|_testdev)?')
NAMES = sorted(path.stem for path in CONFIGS.glob('pose/*_coco_*.py')
               if TESTED.fullmatch(path.stem))  # others have tests elsewhere
PARAMETERS = dict(t=2_524_759, s=7_746_779, b=43_211_777)
CHANNELS = dict(t=18, s=32, b=78)
# size, input: drop path, batch of 8 GPUs
RECIPES = {
    ('t', '256x192'): (0.1, 256), ('t', '384x288'): (0.1, 256),
    ('s', '256x192'): (0.1, 256), ('s', '384x288'): (0.1, 256),
    ('b', '256x192'): (0.2, 256), ('b', '384x288'): (0.3, 128),
}  # yapf: disable
# width, height of the input; of the heatmap; sigma
CODECS = {'256x192': ((192, 256), (48, 64), 2),
          '384x288': ((288, 384), (72, 96), 3)}  # yapf: disable


def load(name):
    return Config.fromfile(CONFIGS / f'pose/{name}.py')


def parts(name):
    """Size (t, s, b), input and change of a config."""
    _, size, _, image, *change = name.split('_')
    return size, image, ''.join(change)


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return write_tiny_coco(tmp_path_factory.mktemp('data') / 'coco')


@pytest.fixture(scope='module')
def small():
    return load('hrformer_s_coco_256x192')


@pytest.fixture(scope='module')
def model(small):
    return zoo.build_model(small)


def test_configs_cover_the_paper_and_two_codecs():
    plain = {f'hrformer_{s}_coco_{i}' for s, i in RECIPES}
    codecs = {f'{name}_{codec}' for name in plain for codec in ('udp', 'dark')
              if '_t_' not in name}  # yapf: disable
    testdev = {f'hrformer_{s}_coco_384x288_testdev' for s in 'tsb'}
    assert set(NAMES) == plain | codecs | testdev


@pytest.mark.parametrize('name', NAMES)
def test_config_builds_the_papers_model(name):
    size, image, _ = parts(name)
    cfg = load(name)
    model = zoo.build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[size]
    assert model.head.in_channels == CHANNELS[size]
    assert model.backbone.drop_path_rate == RECIPES[size, image][0]


@pytest.mark.parametrize('name', NAMES)
def test_config_has_the_hyperparameters_of_the_recipe(name):
    size, image, change = parts(name)
    cfg = load(name)
    batch = RECIPES[size, image][1]
    assert cfg.train_dataloader.batch_size * 8 == batch
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert not cfg.auto_scale_lr.get('enable', False)
    assert cfg.train_cfg.max_epochs == 210
    assert cfg.optim_wrapper.type == 'hrformer_mm.AmpOptimWrapper'
    assert cfg.sync_bn == 'torch'
    assert not cfg.get('find_unused_parameters', False)
    assert cfg.model.test_cfg == dict(
        flip_test=True, flip_mode='heatmap', shift_heatmap=change != 'udp')


@pytest.mark.parametrize('name', NAMES)
def test_codec_is_the_same_in_targets_and_decoder(name):
    size, image, change = parts(name)
    cfg = load(name)
    encoders = [step.encoder for step in cfg.train_dataloader.dataset.pipeline
                if 'encoder' in step]  # yapf: disable
    assert encoders == [cfg.codec] == [cfg.model.head.decoder]
    codec = cfg.codec
    assert (codec.input_size, codec.heatmap_size,
            codec.sigma) == CODECS[image]
    assert codec.type == ('UDPHeatmap' if change == 'udp' else 'MSRAHeatmap')
    assert codec.get('unbiased', False) == (change == 'dark')


@pytest.mark.parametrize('name', NAMES)
def test_crops_are_the_same_in_training_and_tests(name):
    cfg = load(name)
    crops = [
        step for stage in ('train', 'val', 'test')
        for step in cfg[f'{stage}_dataloader'].dataset.pipeline
        if step.type == 'TopdownAffine'
    ]
    assert len(crops) == 3 and crops[0] == crops[1] == crops[2]
    assert crops[0].get('use_udp', False) == name.endswith('_udp')
    assert crops[0].input_size == cfg.codec.input_size


@pytest.mark.parametrize('name', NAMES)
def test_codec_decodes_what_it_encodes(name):
    """Within half a cell of the map; DARK and UDP within a tenth."""
    from mmpose.registry import KEYPOINT_CODECS
    codec = KEYPOINT_CODECS.build(load(name).codec)
    rng = np.random.default_rng(0)
    points = rng.uniform(.2, .8, (1, 17, 2)) * codec.input_size
    maps = codec.encode(points, np.ones((1, 17)))['heatmaps']
    decoded = codec.decode(maps)[0]
    if name.endswith('_udp'):  # its image ends in the middle of a pixel
        decoded *= 1 - 1 / np.array(codec.input_size)
    error = np.abs(decoded - points).max()
    cell = codec.input_size[0] / codec.heatmap_size[0]
    exact = parts(name)[2] in ('udp', 'dark')
    assert error < (.1 * cell if exact else .5 * cell)


def test_only_relative_position_tables_have_no_weight_decay(small, model):
    wrapper = build_optim_wrapper(
        model, dict(small.optim_wrapper, type='OptimWrapper'))
    assert type(wrapper.optimizer) is torch.optim.AdamW
    names = {id(p): name for name, p in model.named_parameters()}
    decay = {}
    for group in wrapper.optimizer.param_groups:
        assert group['lr'] == 5e-4 and group['betas'] == (0.9, 0.999)
        for p in group['params']:
            decay[names[id(p)]] = group['weight_decay']
    assert set(decay) == set(names.values())
    tables = {n for n in decay if n.endswith('relative_position_bias_table')}
    assert len(tables) == 44  # one per block
    assert {decay[n] for n in tables} == {0}
    assert {decay[n] for n in set(decay) - tables} == {0.01}
    assert small.optim_wrapper.get('clip_grad') is None


def learning_rates(cfg, schedule, steps):
    """Learning rate before each step of one of a config's two schedules."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 5e-4)
    scheduler = PARAM_SCHEDULERS.build(
        cfg.param_scheduler[schedule],
        default_args=dict(optimizer=optimizer))
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    return rates


def test_learning_rate_warms_up_for_500_iterations(small):
    assert not small.param_scheduler[0].by_epoch
    rates = learning_rates(small, 0, 700)
    for i in (0, 1, 250, 499):  # as mmcv 1.x has it
        assert rates[i] == pytest.approx(5e-4 * (1 - .999 * (1 - i / 500)))
    assert rates[500] == rates[699] == pytest.approx(5e-4)


def test_learning_rate_falls_at_epochs_170_and_200(small):
    assert small.param_scheduler[1].get('by_epoch', True)
    rates = learning_rates(small, 1, 210)
    expected = {0: 5e-4, 169: 5e-4, 170: 5e-5, 199: 5e-5, 200: 5e-6,
                209: 5e-6}  # yapf: disable
    assert {e: rates[e] for e in expected} == pytest.approx(expected)


def test_mixed_precision_is_enabled_with_a_gpu(small, monkeypatch):
    for module in ('mmengine.optim.optimizer.amp_optimizer_wrapper',
                   'hrformer_mm.engine.optim'):
        monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
    init_default_scope('mmpose')
    built = build_optim_wrapper(
        torch.nn.Linear(2, 2), dict(small.optim_wrapper, paramwise_cfg=None))
    assert isinstance(built, AmpOptimWrapper) and built.is_mixed
    assert built._scale_update_param is None  # the scale adapts itself
    assert built.cast_dtype is None  # float16 on CUDA


def test_weights_are_those_of_the_release():
    files = {
        size: load(f'hrformer_{size}_coco_256x192').model.backbone.init_cfg
        for size in 'tsb'
    }
    assert {s: f.checkpoint for s, f in files.items()} == dict(
        t='hrformer_t_imagenet_224.pth', s='hrt_small.pth', b='hrt_base.pth')


def small_config(name, coco, folder):
    """A config with a network of a few thousand parameters."""
    cfg = tiny_config(f'pose/{name}.py', folder, coco)
    cfg.model.backbone.arch, cfg.model.head.in_channels = SMALL, 8
    return cfg


def mark_slow(names, *fast):
    """Parameters of which only some are for the default run."""
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


@pytest.mark.parametrize(
    'name',
    mark_slow([name for name in NAMES if parts(name)[2] != 'testdev'],
              'hrformer_s_coco_256x192_udp'))
def test_config_trains_and_evaluates_with_a_small_network(
        name, coco, tmp_path):
    runner = run_training(small_config(name, coco, tmp_path))
    scalars = last_scalars(runner)
    assert runner.iter == 2 and np.isfinite(scalars['train/loss'])
    assert 0 <= scalars['val/coco/AP'] <= 1
    assert list(tmp_path.glob('best_coco_AP_epoch_1.pth'))


@pytest.mark.parametrize(
    'name',
    mark_slow([name for name in NAMES if not parts(name)[2]],
              'hrformer_t_coco_256x192'))
def test_config_trains_and_evaluates(name, coco, tmp_path):
    runner = run_training(tiny_config(f'pose/{name}.py', tmp_path, coco))
    assert runner.iter == 2
    assert np.isfinite(last_scalars(runner)['train/loss'])


@pytest.mark.parametrize('size', 'tsb')
def test_testdev_config_writes_its_submission(size, coco, tmp_path):
    name = f'hrformer_{size}_coco_384x288_testdev'
    own = load(name).test_evaluator.outfile_prefix
    assert own == f'work_dirs/{name}/test-dev2017'
    cfg = small_config(name, coco, tmp_path)
    cfg.test_evaluator.outfile_prefix = str(tmp_path / 'dev')
    assert Runner.from_cfg(cfg).test() == {}
    results = json.loads((tmp_path / 'dev.keypoints.json').read_text())
    assert results and all(
        set(r) >= {'image_id', 'category_id', 'keypoints', 'score'}
        and len(r['keypoints']) == 51 for r in results)


def test_testdev_configs_do_not_change_training_and_val():
    for size in 'tsb':
        dev = load(f'hrformer_{size}_coco_384x288_testdev').to_dict()
        val = load(f'hrformer_{size}_coco_384x288').to_dict()
        for key in ('test_dataloader', 'test_evaluator'):
            assert dev.pop(key) != val.pop(key)
        assert dev == val


def test_official_pose_weights_need_one_option(small):
    cfg = small.copy()
    cfg.merge_from_dict({'model.backbone.rel_pos_bias': False})
    with DefaultScope.overwrite_default_scope('mmpose'):
        names = zoo.build_model(cfg).state_dict()
    assert not any('relative_position' in name for name in names)
