# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Configs of datasets that the paper does not use: they train and test."""
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from dataset_samples import SAMPLES, Sample
from helpers import CONFIGS, last_scalars, run_training, tiny_config
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_tasks import ARCH

from hrformer_mm import zoo

for package in ('mmpose', 'mmseg'):
    pytest.importorskip(package)
# Keypoints or classes, epochs or iterations, headline metric.
FACTS: dict[str, tuple] = {
    'coco-wholebody': (133, 210, 'coco-wholebody/AP'),
    'mpii': (16, 210, 'PCK'),
    'crowdpose': (14, 210, 'crowdpose/AP'),
    'aic': (14, 210, 'coco/AP'),
    'ochuman': (17, 210, 'coco/AP'),
    'posetrack18': (17, 20, 'coco/AP'),
    'humanart': (17, 210, 'coco/AP'),
    **{f'jhmdb-sub{i}': (15, 20, 'PCK') for i in (1, 2, 3)},
    'coco-wholebody-hand': (21, 210, 'AUC'),
    'onehand10k': (21, 210, 'AUC'),
    'freihand2d': (21, 100, 'AUC'),
    'interhand2d': (42, 210, 'AUC'),
    '300w': (68, 60, 'NME'),
    'wflw': (98, 60, 'NME'),
    'cofw': (29, 60, 'NME'),
    'aflw': (19, 60, 'NME'),
    'deepfashion-full': (8, 210, 'AUC'),
    'deepfashion-upper': (6, 210, 'AUC'),
    'deepfashion-lower': (4, 210, 'AUC'),
    'ap10k': (17, 210, 'coco/AP'),
    'animalpose': (20, 210, 'coco/AP'),
    **{f'horse10-split{i}': (22, 210, 'PCK') for i in (1, 2, 3)},
    'macaque': (17, 210, 'coco/AP'),
    'loveda': (7, 80000, 'mIoU'),
    'potsdam': (6, 80000, 'mIoU'),
    'vaihingen': (6, 80000, 'mIoU'),
    'isaid': (16, 80000, 'mIoU'),
    'mapillary-v1': (66, 240000, 'mIoU'),
    'mapillary-v2': (124, 240000, 'mIoU'),
    'bdd100k': (19, 80000, 'mIoU'),
    'drive': (2, 40000, 'mDice'),
    'stare': (2, 40000, 'mDice'),
    'chase-db1': (2, 40000, 'mDice'),
    'hrf': (2, 40000, 'mDice'),
}  # yapf: disable
CONFIG_FILES = {
    path.stem: path for task in ('pose', 'seg')
    for path in sorted((CONFIGS / task).glob('hrformer_[sb]_*.py'))
    if path.stem.split('_')[2] in FACTS
}
FAST = ('hrformer_s_coco-wholebody_256x192', 'hrformer_s_drive_64x64')
LOADERS = dict(train='train', val='val', test='val')


def facts(name: str) -> tuple:
    return FACTS[name.split('_')[2]]


def sample_of(dataset: Config) -> Sample:
    """Return the generated dataset with the class of a config's dataset."""
    key = ('OCHumanDataset' if dataset.type == 'CocoDataset' else dataset.type,
           dataset.get('subset'))  # OCHuman is in the format of COCO
    found, = (sample for sample in SAMPLES.values()
              if (sample.dataset('train')['type'],
                  sample.dataset('train').get('subset')) == key)
    return found


def below(root: str, path: str) -> Path:
    return Path(path) if path.startswith(root) else Path(root, path)


def write_boxes(annotations: Path, path: Path):
    """Write the labelled boxes as those of a detector."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(annotations.read_text())['annotations']
    path.write_text(json.dumps([
        dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=.9)
        for a in found]))


def write_data(cfg: Config):
    """Write generated data where a config looks for it."""
    for loader, split in LOADERS.items():
        dataset = cfg[f'{loader}_dataloader'].dataset
        sample, source = sample_of(dataset), Path('sample', loader)
        if not source.exists():
            sample.write(source)
        own = sample.dataset(split)
        for key, place in dataset.get('data_prefix', {'img': ''}).items():
            folder = source / own['data_prefix'][key]
            shutil.copytree(folder, Path(dataset.data_root, place),
                            dirs_exist_ok=True)
        for key in (k for k in own if k.endswith('_file')):
            target = below(dataset.data_root, dataset[key])
            target.parent.mkdir(parents=True, exist_ok=True)
            file = below('{}', own[key]).relative_to('{}')
            shutil.copy(source / file, target)
        if dataset.get('bbox_file'):
            write_boxes(source / own['ann_file'],
                        below(dataset.data_root, dataset.bbox_file))


def shrunk(name: str, folder: Path, **options: Any) -> Config:
    """Return a config that trains on small label maps.

    S keeps its network, except in the default run; B differs from it in
    numbers only, which test_zoo.py counts.
    """
    small = {'model.backbone.arch': ARCH} if (
        name in FAST or '_b_' in name) else {}
    cfg = tiny_config(CONFIG_FILES[name], folder, **small, **options)
    if small and cfg.default_scope == 'mmpose':
        cfg.model.head.in_channels = 8
    elif small:
        cfg.model.decode_head.update(
            in_channels=(8, 16, 32, 64), channels=16, ocr_channels=8)
    for loader in LOADERS:
        if loader != 'train':
            cfg[f'{loader}_dataloader'].dataset.pop('indices')
        for step in cfg[f'{loader}_dataloader'].dataset.pipeline:
            for key, size in (('scale', (128, 96)), ('crop_size', (64, 64))):
                if key in step:
                    step[key] = size
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = (64, 64)
        if cfg.model.test_cfg.mode == 'slide':
            cfg.model.test_cfg.update(crop_size=(64, 64), stride=(42, 42))
    return cfg


def mark(names: Any) -> list:
    return [name if name in FAST else pytest.param(
        name, marks=pytest.mark.slow) for name in names]


def test_every_dataset_has_a_config():
    assert {name.split('_')[2] for name in CONFIG_FILES} == set(FACTS)


@pytest.mark.parametrize('name', mark(CONFIG_FILES))
def test_config_has_the_values_of_the_recipe_and_of_its_dataset(name):
    points, length, metric = facts(name)
    cfg = Config.fromfile(CONFIG_FILES[name])
    model, size = cfg.model, zoo.input_size(name)
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert 'relative_position_bias_table' in (
        cfg.optim_wrapper.paramwise_cfg.custom_keys)
    assert (cfg.train_cfg.get('max_epochs')
            or cfg.train_cfg.max_iters) == length
    assert cfg.default_hooks.checkpoint.save_best == metric
    if cfg.default_scope == 'mmseg':
        assert model.decode_head.num_classes == points
        assert model.data_preprocessor.size == cfg.crop_size == size
        return
    assert model.head.out_channels == points
    assert cfg.optim_wrapper.optimizer.lr == 5e-4
    assert cfg.codec.input_size == size[::-1]
    assert cfg.codec.heatmap_size == (size[1] // 4, size[0] // 4)
    pipeline = cfg.train_dataloader.dataset.pipeline
    encoders = [step.encoder for step in pipeline if 'encoder' in step]
    assert encoders == [cfg.codec] == [model.head.decoder]
    assert cfg.train_dataloader.dataset.type == cfg.dataset_type


@pytest.mark.parametrize('name', mark(CONFIG_FILES))
def test_config_trains_evaluates_and_tests_on_its_dataset(
        name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metric = facts(name)[2]
    cfg = shrunk(name, tmp_path / 'run')
    write_data(cfg)
    runner = run_training(cfg)
    scalars = last_scalars(runner)
    assert runner.iter == 2 and scalars['train/loss'] > 0
    best, = tmp_path.glob('run/best_*.pth')
    again = shrunk(name, tmp_path / 'test', load_from=str(best))
    found = Runner.from_cfg(again).test()
    assert metric in found
    if cfg.test_dataloader == cfg.val_dataloader:
        assert found[metric] == pytest.approx(
            scalars[f'val/{metric}'], abs=1e-3)
