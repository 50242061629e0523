# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A row of each task on several processes, by tools/dist_train.sh.

In double precision: in single precision the rounding of an untrained network
grows tenfold in each of the first steps, whatever the number of processes.
"""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from test_distributed import assert_same_steps
from tiny_tasks import ROWS, task_row
from toy import ENV

FRAMEWORKS = dict(pose='mmpose', seg='mmseg', cls='mmpretrain')
STEPS = 20


def write_row(task: str, folder: Path, processes: int) -> Path:
    """A config of 20 steps with batches that are 8 over all processes."""
    pytest.importorskip(FRAMEWORKS[task])
    folder.mkdir()
    cfg = task_row(task, folder, samples=16, batch=8 // processes,
                   passes=STEPS // 2)
    if 'max_iters' in cfg.train_cfg:  # counts the batches of one process
        cfg.train_cfg.update(max_iters=STEPS, val_interval=STEPS)
        cfg.default_hooks.checkpoint.interval = STEPS
    else:
        cfg.train_cfg.val_interval = STEPS // 2
        cfg.default_hooks.checkpoint.interval = STEPS // 2
    cfg.custom_imports.imports = [*cfg.custom_imports.imports, 'toy']
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(
        type='mmengine.RecordSteps', path=str(folder / 'steps.pth'))]
    cfg.dump(folder / 'row.py')
    return folder


def train(folder: Path, processes: int) -> Path:
    """Train a row; its folder has the steps and the metrics."""
    row = str(folder / 'row.py')
    command = [sys.executable, ROOT / 'tools/train.py', row]
    if processes > 1:
        command = ['bash', ROOT / 'tools/dist_train.sh', row, str(processes)]
    done = subprocess.run(command, env=dict(ENV, TOY_DOUBLE='1'),
                          timeout=600, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


def metrics(folder: Path) -> dict:
    lines = next(folder.glob('run/*/vis_data/scalars.json')).read_text()
    last = json.loads(lines.splitlines()[-1])
    return {k: v for k, v in last.items() if 'time' not in k and k != 'step'}


@pytest.mark.slow
@pytest.mark.parametrize('task', ROWS)
def test_rows_take_the_same_steps_on_several_processes(task, tmp_path):
    one = train(write_row(task, tmp_path / '1', 1), 1)
    assert len(torch.load(one / 'steps.pth')['losses']) == STEPS
    for processes in (2, 4):
        several = train(
            write_row(task, tmp_path / str(processes), processes), processes)
        assert_same_steps(several, one)
        assert metrics(several) == pytest.approx(metrics(one), abs=1e-3)


def test_a_row_takes_the_same_steps_on_two_processes(tmp_path):
    one = train(write_row('cls', tmp_path / '1', 1), 1)
    two = train(write_row('cls', tmp_path / '2', 2), 2)
    assert_same_steps(two, one)
    assert metrics(two) == pytest.approx(metrics(one), abs=1e-3)
