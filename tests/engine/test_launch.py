# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Exit codes of several processes, signals to them, missing machines."""
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from helpers import ROOT
from processes import finish, free_port, start
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ProcessFailure,
)
from toy import ENV, toy_config

from hrformer_mm.engine import launch


def failure(code, at):
    found = ProcessFailure(0, 1, code, 'none')
    found.timestamp = at
    return found


@pytest.mark.parametrize('codes, expected, says', [
    ([2, -15], 2, 'process 0 ended with exit code 2'),
    ([-9, 1], 137, 'process 0 was killed: Signal 9 (SIGKILL)'),
    ([-6, 143], 143, ''), ([143, 143], 143, '')])
def test_the_exit_code_is_that_of_the_first_failure(codes, expected, says,
                                                    capsys):
    failures = {i: failure(code, i) for i, code in enumerate(codes)}
    assert launch.code_of(ChildFailedError('train.py', failures)) == expected
    assert says in capsys.readouterr().err


SCRIPT = '''
import os, signal, sys, time
if sys.argv[1] == 'fail':
    sys.exit(3 * int(os.environ['RANK']))
signals = []
signal.signal(signal.SIGTERM, lambda *_: signals.append(1))
open(f"{sys.argv[2]}/up_{os.environ['RANK']}", 'w').write(str(os.getpid()))
while not signals:
    time.sleep(.05)
time.sleep(2)
open(f"{sys.argv[2]}/left_{os.environ['RANK']}", 'w').close()
sys.exit(143)
'''


def wait_for(*paths, seconds=120):
    end = time.monotonic() + seconds
    while not all(p.exists() for p in paths):
        assert time.monotonic() < end, f'no {paths}'
        time.sleep(.05)


def test_the_launcher_passes_on_a_signal_and_waits(tmp_path):
    """Also if the signal comes again while it waits."""
    (tmp_path / 'script.py').write_text(SCRIPT)
    command = [sys.executable, '-m', 'hrformer_mm.engine.launch',
               '--standalone', '--nproc_per_node=2', tmp_path / 'script.py']
    process = subprocess.Popen([*map(str, command), 'wait', str(tmp_path)],
                               env=ENV)
    wait_for(tmp_path / 'up_0', tmp_path / 'up_1')
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(.5)
    assert process.wait(120) == 143
    assert (tmp_path / 'left_0').exists() and (tmp_path / 'left_1').exists()
    done = subprocess.run([*map(str, command), 'fail'], env=ENV, text=True,
                          capture_output=True)
    assert done.returncode == 3, done.stderr
    assert 'error: process 1 ended with exit code 3' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_a_missing_machine_is_reported(rank, tmp_path):
    (tmp_path / 'script.py').write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, '-m', 'hrformer_mm.engine.launch', '--nnodes', '2',
         '--node_rank', str(rank), '--nproc_per_node', '1', '--master_addr',
         '127.0.0.1', '--master_port', free_port(), tmp_path / 'script.py',
         'fail'], env=dict(ENV, NODE_TIMEOUT='6'), text=True,
        capture_output=True, timeout=120)  # yapf: disable
    assert done.returncode == 2, done.stderr
    other = f'machine NODE_RANK={1 - rank} of NNODES=2 is missing at 127.0.0.1'
    assert f'waiting: {other}' in done.stderr
    assert f'error: {other}' in done.stderr


def test_machines_that_joined_are_not_missing(monkeypatch):
    machines = launch.Machines(4, 0, 'host', 1, 60.)
    assert machines.missing == [1, 2, 3]
    there = {machines.key(r) for r in (0, 2)}
    machines.look(SimpleNamespace(check=lambda keys: keys[0] in there))
    assert 'machines NODE_RANK=1,3 of NNODES=4 are missing' in machines.text


# A training


@pytest.fixture
def config(tmp_path):
    """Long epochs, evaluations with workers that stay, checkpoints rarely."""
    cfg = toy_config(tmp_path / 'unused', workers=1, **{
        'train_cfg.max_epochs': 4, 'default_hooks.checkpoint.interval': 3,
        'model.drop': 0., 'model.seconds': .3,
        'val_dataloader.num_workers': 1,
        'val_dataloader.persistent_workers': True,
        'custom_hooks': [dict(type='EMAHook', momentum=.3)]})
    cfg.custom_imports.imports = ['hrformer_mm', 'toy']
    cfg.pop('work_dir')
    cfg.dump(tmp_path / 'config.py')
    return tmp_path / 'config.py'


def processes_of(text):
    """Return the ids of processes whose command line holds a text."""
    found = psutil.process_iter(['pid', 'cmdline', 'status'])
    return [p.pid for p in found if p.info['status'] != 'zombie' and any(
        text in word for word in p.info['cmdline'] or ())]


def stop_in_the_second_evaluation(config, folder, count, send):
    """Start dist_train.sh in a group of its own, signal it, and resume it."""
    args = ['bash', ROOT / 'tools/dist_train.sh', config, count, '--work-dir',
            folder, '--resume']
    process = subprocess.Popen(
        list(map(str, args)), env=ENV, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(r'Epoch\(val\) +\[2\]\[1/', line):
            break
    send(process)
    rest = process.communicate(timeout=900)[0]
    text = ''.join(lines) + rest
    assert process.returncode == 143, text
    assert not processes_of(str(folder)), 'processes are left'
    assert text.count('SIGTERM: stopped after') == 1, text
    assert (folder / 'interrupted.pth').is_file(), text
    text = finish(start('dist_train.sh', config, count, '--work-dir', folder,
                        '--resume'))
    assert 'resumed epoch' in text


def signal_script(process):
    process.send_signal(signal.SIGTERM)


def signal_group(process):
    os.killpg(process.pid, signal.SIGTERM)


def signal_all(process):
    """Signal every process of the job, as Slurm and systemd do."""
    for pid in processes_of(str(process.args[-2])):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass


@pytest.mark.slow
@pytest.mark.parametrize('count, send', [
    (1, signal_script), (2, signal_script), (2, signal_group),
    (2, signal_all)])
def test_sigterm_stops_all_processes_and_nothing_is_lost(count, send, config,
                                                         tmp_path):
    folder = tmp_path / 'stopped'
    stop_in_the_second_evaluation(config, folder, count, send)
    saved = torch.load(folder / 'epoch_4.pth')
    finish(start('dist_train.sh', config, count, '--work-dir',
                 tmp_path / 'whole'))
    whole = torch.load(tmp_path / 'whole/epoch_4.pth')
    for key in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(saved[key][n], whole[key][n])
                   for n in whole[key])


def test_a_signal_to_dist_train_ends_the_dry_run(tmp_path):
    """Which is the first of what it runs."""
    stub = tmp_path / 'python'
    stub.write_text(f'#!/bin/bash\necho $$ > {tmp_path}/up\nexec sleep 100\n')
    stub.chmod(0o755)
    process = start('dist_train.sh', 'config.py', 2, PYTHON=str(stub),
                    PREFLIGHT='1')
    wait_for(tmp_path / 'up')
    time.sleep(.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / 'up').read_text()), 0)
