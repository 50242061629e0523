# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Trainings of the study on real datasets, on noise in the same layout."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT
from small_data import WRITERS

from benchmarks.real_data import run
from hrformer_mm.engine.train import read_config

NAME = 'hrformer_t_openfield_252x336_seed0'
OPTIONS = ['train_cfg.max_epochs=3', 'train_cfg.val_interval=1',
           'default_hooks.checkpoint.interval=1',
           'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
           'val_dataloader.num_workers=0',
           'train_dataloader.persistent_workers=False',
           'val_dataloader.persistent_workers=False']


def study(folder, kill_at=None):
    """Run one trial; kill all its processes once a file is there."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.real_data.run', 'openfield',
         '--data-root', folder.parent, '--only', NAME, '--work-dir', folder,
         '--results', folder / 'results', '--cfg-options', *OPTIONS],
        cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)),
        start_new_session=True, text=True, stdout=subprocess.PIPE)
    while kill_at and process.poll() is None:
        if (folder / NAME / kill_at).exists():
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(.1)
    out = process.communicate(timeout=900)[0]
    assert kill_at or process.returncode == 0, out
    return out


@pytest.mark.slow
def test_a_killed_trial_continues_and_ends_the_same(tmp_path):
    pytest.importorskip('mmpose')
    WRITERS['openfield'](tmp_path / 'mouse_openfield')
    study(tmp_path / 'whole')
    study(tmp_path / 'killed', kill_at='epoch_1.pth')
    assert not (tmp_path / f'killed/results/{NAME}.json').exists()
    study(tmp_path / 'killed')
    results = [json.loads((tmp_path / f'{n}/results/{NAME}.json').read_text())
               for n in ('whole', 'killed')]
    whole, killed = results
    assert killed['metrics'] == whole['metrics']
    assert [len(p) for p in killed['curves'].values()] == [
        len(p) for p in whole['curves'].values()]
    assert whole['parameters'] > 2e6 and whole['training_seconds'] > 0
    weights = [torch.load(tmp_path / n / NAME / 'epoch_3.pth',
                          weights_only=True, map_location='cpu')['state_dict']
               for n in ('whole', 'killed')]
    assert all(torch.equal(a, b) for a, b in zip(*(
        w.values() for w in weights)))
    # What is done is not done again.
    assert 'done before' in study(tmp_path / 'killed')


@pytest.mark.parametrize('name, template', [
    ('hrformer_s_openfield_256x192_template', 'pose/custom_keypoints'),
    ('hrformer_s_camvid_520x520_template', 'seg/custom_labels')])
def test_templates_have_the_recipe_that_users_copy(name, template):
    ours, theirs = (read_config(str(ROOT / path)) for path in (
        f'benchmarks/real_data/templates/{name}.py',
        f'configs/{template}.py'))
    for key in ('optim_wrapper', 'param_scheduler', 'train_dataloader',
                'val_dataloader'):
        for cfg in (ours, theirs):
            if key.endswith('dataloader'):
                for part in ('ann_file', 'data_prefix', 'metainfo'):
                    cfg[key].dataset.pop(part, None)
        assert ours[key] == theirs[key], key


@pytest.mark.slow
@pytest.mark.parametrize('study, folder, options', [
    ('openfield', 'mouse_openfield', OPTIONS),
    ('camvid', 'camvid', ['train_cfg.max_iters=1', 'train_cfg.val_interval=1',
                          'default_hooks.checkpoint.interval=1',
                          *OPTIONS[3:]])])
def test_templates_are_trained_and_tested(study, folder, options, tmp_path):
    pytest.importorskip('mmpose' if study == 'openfield' else 'mmseg')
    WRITERS[study](tmp_path / folder)
    results = tmp_path / 'results'
    run.main([study, '--data-root', str(tmp_path), '--only', '*template*',
              '--work-dir', str(tmp_path / 'work'), '--results', str(results),
              '--cfg-options', *options])
    found, = (json.loads(p.read_text()) for p in results.iterdir())
    assert found['metrics'] and found['parameters'] > 7e6
    assert found['config'].endswith('_template')
