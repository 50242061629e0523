# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Every segmentation config trains and evaluates on its real data layout."""
from pathlib import Path

import pytest
import torch
from helpers import CONFIGS, SMALL, last_scalars, run_training, tiny_config
from mmengine.config import Config
from mmengine.runner import Runner
from seg_data import write_tiny

from hrformer_mm.engine.train import use_tta
from hrformer_mm.zoo import build_model, list_entries

DATASETS = ('cityscapes', 'pascal-context', 'pascal-context-60', 'coco-stuff',
            'coco-stuff-164k', 'ade20k')
FILES = [r.name for r in list_entries(task='seg') if r.config]
NAMES = [name for name in FILES if not set(name.split('_')) & {
    'synthetic', 'camvid'}]  # test_small_data_configs.py has the latter
# One for each kind of dataset; the others are large or alike.
QUICK = ('hrformer_t_cityscapes_512x1024', 'hrformer_s_ade20k_520x520')


def slow_unless(quick, names):
    return [
        pytest.param(n, marks=[] if n in quick else [pytest.mark.slow])
        for n in names
    ]


# Heads of other methods than OCR; the largest of their networks has
# 318 million parameters, of which these leave 4 layers.
FEW_LAYERS = {'model.backbone.num_layers': 4,
              'model.backbone.out_indices': (0, 1, 2, 3)}  # yapf: disable
OTHERS = {
    'deeplabv3': {}, 'pspnet': {}, 'setr-pup': FEW_LAYERS,
    'setr-mla': FEW_LAYERS, 'dpt_vit-b': FEW_LAYERS,
    'dpt_hybrid': {'model.backbone.depth': 2, 'model.backbone.hooks': (0, 1)}
}  # yapf: disable
PARAMETERS = {
    'hrformer_t_cityscapes_512x1024': 6_269_834,
    'hrformer_s_cityscapes_512x1024': 13_523_856,
    'hrformer_s_cityscapes_512x1024_w9': 13_538_496,
    'hrformer_s_cityscapes_512x1024_w11': 13_557_040,
    'hrformer_b_cityscapes_512x1024': 56_032_512,
    'hrformer_b_cityscapes_512x1024_w5': 56_011_040,
    'hrformer_b_cityscapes_512x1024_w9': 56_061_792,
    'hrformer_b_cityscapes_512x1024_w11': 56_098_880,
    'hrformer_b_cityscapes_512x1024_w13': 56_143_776,
    'hrformer_b_cityscapes_512x1024_w15': 56_196_480,
    'hrformer_b_cityscapes_512x1024_wmixed': 56_116_320,
    'hrnet_w48_cityscapes_512x1024': 74_522_182,
    'hrformer_t_pascal-context_520x520': 6_310_874,
    'hrformer_s_pascal-context_520x520': 13_564_896,
    'hrformer_b_pascal-context_520x520': 56_073_552,
    'hrformer_b_pascal-context_520x520_w15': 56_237_520,
    'hrformer_s_coco-stuff_520x520': 13_679_808,
    'hrformer_b_coco-stuff_520x520': 56_188_464,
    'hrformer_b_coco-stuff_520x520_w15': 56_352_432,
    'hrformer_s_coco-stuff-164k_520x520': 13_679_808,
    'hrformer_b_coco-stuff-164k_520x520': 56_188_464,
    'hrformer_b_coco-stuff-164k_520x520_w15': 56_352_432,
    'hrformer_s_ade20k_520x520': 13_658_262,
    'hrformer_b_ade20k_520x520': 56_166_918,
    'hrformer_b_ade20k_520x520_w13': 56_278_182,
}


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """Folder of each dataset."""
    root = tmp_path_factory.mktemp('data')
    return {name: write_tiny(name, root / name) for name in DATASETS}


def shrink(cfg: Config, size: int = 64):
    """Crops and shorter sides of 64 instead of 512 and 520."""
    cfg.model.data_preprocessor.size = (size, size)
    pipelines = [cfg[f'{split}_dataloader'].dataset.pipeline
                 for split in ('train', 'val', 'test')]
    for step in [*sum(pipelines, []), *cfg.tta_pipeline]:
        if step.type == 'RandomCrop':
            step.crop_size = (size, size)
        if step.type == 'Resize':
            step.scale = (10000, size)
        if step.type == 'RandomResize':
            step.scale = (size, size)
    if cfg.model.test_cfg.mode == 'slide':
        cfg.model.test_cfg.update(crop_size=(size, size), stride=(40, 40))


def small_config(name: str, data: dict, work_dir: Path, **options) -> Config:
    method, size, dataset, *_ = name.split('_')
    options.update(OTHERS.get(f'{method}_{size}', {}))
    cfg = tiny_config(f'seg/{name}.py', work_dir, data[dataset],
                      **OTHERS.get(method, {}), **options)
    shrink(cfg)
    return cfg


def trained(name: str, data: dict, work_dir: Path) -> Runner:
    """Two iterations and an evaluation of a config, without a checkpoint."""
    return run_training(
        small_config(
            name, data, work_dir, **{
                'default_hooks.checkpoint.interval': -1,
                'default_hooks.checkpoint.save_best': None,
                'default_hooks.checkpoint.save_last': False,
            }))


def assert_trained(runner: Runner, *more: str):
    scalars = last_scalars(runner)
    assert runner.iter == 2
    assert 0 <= scalars['val/mIoU'] <= 100
    for name in ('loss', 'decode.acc_seg', *more):
        assert torch.isfinite(torch.tensor(scalars[f'train/{name}'])), name


@pytest.mark.parametrize('name', slow_unless(QUICK, NAMES))
def test_config_trains_and_evaluates(name, data, tmp_path):
    is_other = name.startswith(tuple(OTHERS))
    assert_trained(
        trained(name, data, tmp_path),
        *([] if is_other else ['decode.loss_aux', 'decode.acc_aux']))


@pytest.mark.parametrize('name', PARAMETERS)
def test_config_has_the_official_number_of_parameters(name):
    model = build_model(Config.fromfile(CONFIGS / f'seg/{name}.py'))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    'dataset', slow_unless(('cityscapes', ), DATASETS))
def test_a_run_resumes_and_is_tested_with_scales_and_flips(
        dataset, data, tmp_path):
    crop = '512x1024' if dataset == 'cityscapes' else '520x520'
    name = f'hrformer_s_{dataset}_{crop}'
    small = {
        'model.backbone.arch': dict(SMALL, _delete_=True),
        'model.decode_head.in_channels': SMALL['channels'],
        'model.decode_head.channels': 32,
        'model.decode_head.ocr_channels': 16,
        'test_dataloader.dataset.indices': 1,
        'test_dataloader.batch_size': 1,
    }
    first = run_training(small_config(name, data, tmp_path, **small))
    cfg = small_config(name, data, tmp_path, resume=True, **small)
    cfg.train_cfg.update(max_iters=4, val_interval=4)
    second = Runner.from_cfg(cfg)
    second.load_or_resume()
    assert second.iter == 2
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key])
    second.train()
    assert second.iter == 4

    cfg = small_config(name, data, tmp_path, **small)
    cfg.load_from = str(tmp_path / 'iter_4.pth')
    use_tta(cfg)
    assert 0 <= Runner.from_cfg(cfg).test()['mIoU'] <= 100


def test_every_config_has_its_number_of_parameters():
    entries = {r.name: r.parameters for r in list_entries(task='seg')}
    assert {k: entries[k] for k in PARAMETERS} == PARAMETERS
