# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""compile=True trains the configs of all tasks, on one and two processes."""
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from tiny_tasks import CONFIG_FILES, task_config
from toy import ENV

from hrformer_mm.engine import train as training

pytestmark = pytest.mark.slow  # tracing takes minutes on a busy machine
for package in ('mmpose', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)


def compiled_config(task, folder):
    folder.mkdir(parents=True, exist_ok=True)
    cfg = task_config(task, folder, samples=4, batch=2, passes=1)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.save_best = None
    # The graphs of torch.compile without its code generation.
    cfg.compile = dict(backend='aot_eager')
    return cfg


def last_weights(folder):
    (path, ) = folder.glob('run/*_[0-9]*.pth')
    return torch.load(path, weights_only=True)['state_dict']


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_compiled_training_takes_the_same_steps_as_eager(task, tmp_path):
    plain = compiled_config(task, tmp_path / 'plain')
    plain.compile = False
    training.train(plain)
    torch._dynamo.utils.counters.clear()
    training.train(compiled_config(task, tmp_path / 'compiled'))
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] >= 2
    a, b = (last_weights(tmp_path / n) for n in ('plain', 'compiled'))
    assert a.keys() == b.keys()
    for name in a:  # two steps of Adam, of at most the rate each
        torch.testing.assert_close(b[name], a[name], rtol=0, atol=5e-3)


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_two_processes_train_compiled(task, tmp_path):
    cfg = compiled_config(task, tmp_path)
    cfg.dump(tmp_path / 'row.py')
    done = subprocess.run(
        ['bash', ROOT / 'tools/dist_train.sh', tmp_path / 'row.py', '2'],
        env=dict(ENV, PYTHON=sys.executable), timeout=3600, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    assert last_weights(tmp_path)
