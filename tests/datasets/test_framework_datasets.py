# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Every tool works on the formats of the frameworks' own datasets."""
import json
import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest
from dataset_samples import IMAGES, SAMPLES, fill
from helpers import ROOT, runs, tiny_config
from tiny_tasks import ARCH, CONFIG_FILES, OPTIONS

from hrformer_mm.__main__ import main as command
from hrformer_mm.datasets.validation.common import check_datasets
from hrformer_mm.datasets.validation.metainfo import names_of, read_metainfo
from hrformer_mm.utils.dataset_leaves import datasets_of

for package in ('mmpose', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)
# In the formats of others: potsdam, drive, ap-10k, onehand10k.
ALIKE = ('vaihingen', 'stare', 'chase-db1', 'hrf', 'macaque', 'cofw')


def write_config(name: str, folder: Path) -> str:
    """Write a dataset, and a config that trains on it in seconds."""
    sample, data = SAMPLES[name], folder / 'data'
    sample.write(data)
    cfg = tiny_config(
        CONFIG_FILES[sample.task], folder / 'run', None, **{
            'model.backbone.arch': ARCH, 'model.backbone.drop_path_rate': 0.},
        **OPTIONS[sample.task])
    for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        part = cfg[f'{loader}_dataloader']
        part.dataset = dict(
            fill(sample.dataset(split), data), pipeline=part.dataset.pipeline)
        cfg[f'{loader}_evaluator'] = fill(sample.evaluator, data)
    cfg.pop('train_evaluator')
    if sample.task == 'pose':
        leaf, = datasets_of(cfg, 'train_dataloader')
        cfg.model.head.out_channels = len(names_of(read_metainfo(leaf)[0]))
    elif sample.task == 'seg':
        cfg.model.decode_head.update(
            num_classes=sample.classes, channels=16, ocr_channels=8)
    else:
        cfg.model.head.num_classes = sample.classes
        cfg.model.data_preprocessor.num_classes = sample.classes
    cfg.default_hooks.checkpoint.update(interval=1, save_best=sample.metric)
    cfg.pop('data_root', None)
    path = folder / f'{name}.py'
    cfg.dump(path)
    return str(path)


def tool(name: str, *args: str, options: Sequence[str] = ()):
    """Run a tool in this process; return its exit code.

    Runners of one process share what has the same name.
    """
    own = f'{name}_{next(runs)}'
    named = [f'experiment_name={own}', f'visualizer.name={own}']
    try:
        runpy.run_path(str(ROOT / f'tools/{name}.py'))['main'](
            [*args, '--cfg-options', *named, *options])
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name
    for name in SAMPLES])
def test_every_dataset_of_the_frameworks_is_checked(name, tmp_path):
    from mmengine.config import Config
    cfg = Config.fromfile(write_config(name, tmp_path))
    for summary in check_datasets(cfg, workers=2).values():
        assert summary.problems == [] and not summary.skipped
        assert summary.counts['images'] == IMAGES
        assert any(summary.classes.values())


@pytest.mark.slow  # the rest of the suite has a dataset of each task
@pytest.mark.parametrize('name', SAMPLES)
def test_all_tools_work_on_a_dataset_of_the_frameworks(name, tmp_path, capsys,
                                                       monkeypatch):
    from mmengine.config import Config
    monkeypatch.chdir(tmp_path)
    config, work = write_config(name, tmp_path), tmp_path / 'run'
    cfg = Config.fromfile(config)
    assert tool('check_dataset', config, '--out-dir', 'sheets') == 0
    assert len(list(tmp_path.glob('sheets/*.png'))) == 2
    assert tool('train', config, '--dry-run') == 0, capsys.readouterr().out
    lines = capsys.readouterr().out
    assert 'ready to train' in lines and 'not checked' not in lines
    assert tool('train', config) == 0
    metrics = [json.loads(line) for path in work.glob('*/vis_data/*.json')
               if path.name != 'config.py'
               for line in path.read_text().splitlines()]
    assert any(SAMPLES[name].metric in line for line in metrics)
    by_iters = bool(cfg.train_cfg.get('max_iters'))
    assert tool('train', config, '--resume', options=[
        'train_cfg.max_iters=4' if by_iters else 'train_cfg.max_epochs=2'
    ]) == 0
    last = Path((work / 'last_checkpoint').read_text())
    assert last.stem == ('iter_4' if by_iters else 'epoch_2')
    assert tool('test', config, str(last), '--out', 'metrics.json') == 0
    assert SAMPLES[name].metric in json.loads(
        (tmp_path / 'metrics.json').read_text())
    images = sorted(p for p in (tmp_path / 'data').rglob('*')
                    if p.suffix in ('.jpg', '.png'))[:2]
    boxes = ['--boxes', 'whole'] * (SAMPLES[name].task == 'pose')
    assert command(['predict', config, str(last), *map(str, images), *boxes,
                    '--device', 'cpu', '--out-dir', 'predicted']) == 0
    assert json.loads((tmp_path / 'predicted/predictions.json').read_text())
