# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Switches of long runs on two processes, and together."""
import subprocess
import sys

import pytest
import torch
from helpers import CONFIGS, ROOT
from mmengine.config import Config
from toy import ENV, QuietRunner, toy_config


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """Folder with the runs of tests/engine/dist_long.py on two processes."""
    folder = tmp_path_factory.mktemp('two_processes')
    done = subprocess.run([
        sys.executable, '-m', 'torch.distributed.run', '--standalone',
        '--nproc_per_node=2', ROOT / 'tests/engine/dist_long.py', folder,
        'checkpointing', 'norms_of_their_own'
    ], env=ENV, timeout=1200, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


def saved(folder, name='epoch_1.pth'):
    return torch.load(folder / name, weights_only=True)['state_dict']


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.slow
@pytest.mark.parametrize('level', ['ffn', True])
def test_checkpointing_with_synchronised_norms_keeps_every_bit(
        level, two_processes):
    assert_same_bits(saved(two_processes / f'with_cp_{level}'),
                     saved(two_processes / 'with_cp_False'))


@pytest.mark.slow
@pytest.mark.parametrize('average', [False, True])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_evaluation_metrics_equal_those_of_the_checkpoint(
        by_epoch, average, two_processes, tmp_path):
    """Also where each process normalises its own batches."""
    folder = two_processes / f'own_{by_epoch}_{average}'
    name = 'epoch_3.pth' if by_epoch else 'iter_18.pth'
    cfg = toy_config(tmp_path, by_epoch=by_epoch, load_from=str(folder / name),
                     **{'default_hooks.checkpoint.save_best': None})
    metrics = QuietRunner.from_cfg(cfg).val()
    # A sum of 12 values near 1 in another order.
    assert metrics['value'] == pytest.approx(torch.load(folder / 'value'),
                                             abs=1e-5)


@pytest.mark.parametrize('config', [
    'pose/hrformer_s_coco_256x192.py', 'cls/hrformer_t_imagenet_224.py',
    'seg/hrformer_s_cityscapes_512x1024.py'])
def test_configs_of_all_tasks_evaluate_with_equal_buffers(config):
    hooks = Config.fromfile(CONFIGS / config).default_hooks
    assert hooks.equal_buffers.type == 'hrformer_mm.EqualBuffersHook'
    assert hooks.checkpoint.type == 'hrformer_mm.SafeCheckpointHook'
