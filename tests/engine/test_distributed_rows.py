# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A config of each task takes the same steps on several processes.

In double precision: in single precision the rounding of an untrained network
grows tenfold in each of the first steps, whatever the number of processes.
"""
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from dist_rows import config_of_steps, metrics, train_configs
from helpers import ROOT
from processes import assert_same_steps
from tiny_tasks import CONFIG_FILES
from toy import ENV

FEW, MANY = 4, 20  # steps that are taken by default and of slow tests
for package in ('mmpose', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)


def finish(command: list, **env: str):
    done = subprocess.run(
        [str(word) for word in command], env=dict(ENV, **env), timeout=900,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    """Folder of what one process wrote, by task, for a number of steps."""

    @cache
    def trained(steps):
        folder = tmp_path_factory.mktemp('one')
        train_configs(folder, 1, steps)
        return folder

    return trained


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """Folder of what the first of two processes wrote, by task."""
    folder = tmp_path_factory.mktemp('two')
    finish([sys.executable, '-m', 'torch.distributed.run', '--standalone',
            '--nproc_per_node=2', ROOT / 'tests/engine/dist_rows.py', folder,
            FEW])
    return folder / '0'


def assert_same_run(several: Path, one: Path, steps: int):
    assert len(torch.load(one / 'steps.pth')['losses']) == steps
    assert_same_steps(several, one)
    assert metrics(several) == pytest.approx(metrics(one), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize('task', CONFIG_FILES)
def test_a_config_takes_the_same_steps_on_two_processes(task, one, two):
    assert_same_run(two / task, one(FEW) / task, FEW)


@pytest.mark.slow
@pytest.mark.parametrize('task', CONFIG_FILES)
@pytest.mark.parametrize('processes', [2, 4])
def test_dist_train_takes_the_same_steps(task, processes, one, tmp_path):
    config_of_steps(task, tmp_path, processes, MANY).dump(tmp_path / 'row.py')
    finish(['bash', ROOT / 'tools/dist_train.sh', tmp_path / 'row.py',
            processes], TOY_DOUBLE='1')
    assert_same_run(tmp_path, one(MANY) / task, MANY)
