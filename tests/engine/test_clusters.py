# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Slurm and several machines, with stand-ins; and processes that die."""
import sys
import time

import pytest
import torch
from mmengine.config import Config
from processes import finish, free_port, start
from toy import ENV, toy_config

# Writes what it was asked for to a file and starts the tasks, as srun does.
SRUN = f'''#!{sys.executable}
import os, subprocess, sys
args = sys.argv[1:]
command = args[args.index({sys.executable!r}):]
options = args[:len(args) - len(command)]
open(os.environ['SRUN_LOG'], 'w').write(chr(10).join(options))
(count, ) = [int(o.split('=')[1]) for o in options if '--ntasks=' in o]
tasks = [subprocess.Popen(command, env=dict(
    os.environ, SLURM_PROCID=str(i), SLURM_LOCALID=str(i),
    SLURM_NTASKS=str(count), SLURM_NNODES='1', SLURM_JOB_ID=str(os.getpid()))
) for i in range(count)]
sys.exit(max(t.wait() for t in tasks))
'''


@pytest.fixture
def config(tmp_path):
    """A config that trains for one epoch in an instant."""
    cfg = toy_config(tmp_path / 'unused', **{'train_cfg.max_epochs': 1})
    cfg.custom_imports.imports = ['hrformer_mm', 'toy']
    cfg.pop('work_dir')
    cfg.test_dataloader, cfg.test_evaluator = (cfg.val_dataloader,
                                               cfg.val_evaluator)
    cfg.test_cfg = dict()
    cfg.dump(tmp_path / 'row.py')
    return tmp_path / 'row.py'


@pytest.mark.slow
def test_slurm_starts_tasks_that_train_together(config, tmp_path):
    (tmp_path / 'bin').mkdir()
    srun = tmp_path / 'bin/srun'
    srun.write_text(SRUN)
    srun.chmod(0o755)
    text = finish(
        start('slurm_train.sh', 'part', 'job', config, tmp_path / 'run',
              GPUS='2', CPUS_PER_TASK='3', SRUN_ARGS='--qos=high',
              SRUN_LOG=str(tmp_path / 'asked'),
              PATH=f"{tmp_path / 'bin'}:{ENV['PATH']}"))
    assert 'Epoch(train) [1][3/3]' in text  # 12 samples, 2 x 2 a step
    assert torch.load(tmp_path / 'run/epoch_1.pth')['meta']['iter'] == 3
    asked = (tmp_path / 'asked').read_text().split()
    for option in ('--ntasks=2', '--gres=gpu:2', '--ntasks-per-node=2',
                   '--cpus-per-task=3', '--kill-on-bad-exit=1', '--qos=high'):
        assert option in asked


@pytest.mark.slow
def test_two_machines_connect_and_train(config, tmp_path):
    port = free_port()
    machines = [
        start('dist_train.sh', config, 1, '--work-dir',
              tmp_path / f'run_{rank}', NNODES='2', NODE_RANK=str(rank),
              MASTER_ADDR='127.0.0.1', PORT=port) for rank in range(2)]
    texts = [finish(m) for m in machines]
    assert 'Epoch(train) [1][3/3]' in texts[0]
    assert (tmp_path / 'run_0/epoch_1.pth').is_file()
    assert not (tmp_path / 'run_1/epoch_1.pth').exists()  # one of them saves


@pytest.mark.slow
def test_killing_one_process_ends_all_processes(config, tmp_path):
    began = time.monotonic()
    cfg = Config.fromfile(config)
    cfg.custom_hooks = [dict(type='CallAt', name='kill_second', at=2)]
    cfg.train_cfg.max_epochs = 1000
    cfg.dump(config)
    process = start('dist_train.sh', config, 2, '--work-dir', tmp_path / 'run')
    text = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert 'Signal 9' in text or 'exitcode  : -9' in text
    assert time.monotonic() - began < 200
