# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Processes of srun and mpirun that do not start: who, and for how long."""
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import ROOT
from processes import free_port
from toy import ENV, toy_config

from hrformer_mm.engine import distributed, launch

HOST = socket.gethostname().partition('.')[0]


def meetings(world, ranks, port, **kwargs):
    return [launch.Meeting(rank, world, '127.0.0.1', int(port), **kwargs)
            for rank in ranks]


def errors_of(these, timeout=2.6):
    """Let processes wait for each other in threads; return their errors."""

    def wait(meeting):
        try:
            meeting.wait(timeout)
        except OSError as error:
            return f'{type(error).__name__} {error}'
        return ''

    with ThreadPoolExecutor(len(these)) as pool:
        return list(pool.map(wait, these))


def test_processes_find_each_other_if_none_is_missing(capsys):
    assert errors_of(meetings(3, [2, 0, 1], free_port()), 60) == [''] * 3
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('world, ranks, machines, says', [
    (3, [0, 1], [], f'process 2 of 3 is missing at 127.0.0.1:{{}} (some '
     f'have started on {HOST})'),
    (4, [0], [HOST, 'a2', 'a3'], 'processes 1-3 of 4 are missing at '
     '127.0.0.1:{} (none has started on a2, a3)'),
    (2, [1], [HOST, 'a2'], 'process 0 of 2 is missing at 127.0.0.1:{}'),
], ids=['third', 'other machines', 'first'])
def test_missing_processes_are_reported(world, ranks, machines, says,
                                        monkeypatch, capsys):
    monkeypatch.setattr(launch, 'REPORT', .1)
    port = free_port()
    says = says.format(port)
    for error in errors_of(meetings(world, ranks, port,
                                    machines=lambda: machines)):
        assert error.startswith(f'TimeoutError {says}; gave up after NODE_TIME'
                                'OUT=3 seconds'), error
    assert f'waiting: {says}, ' in capsys.readouterr().err


def test_a_port_that_is_in_use_is_an_error_at_once():
    with socket.socket() as s:
        s.bind(('', 0))
        s.listen()
        port = s.getsockname()[1]
        began = time.monotonic()
        (error, ) = errors_of(meetings(2, [0], port), 60)
    assert error.startswith(f'OSError 127.0.0.1:{port} cannot be used')
    assert time.monotonic() - began < 30


def test_numbers_of_processes_are_printed_as_ranges():
    assert launch.ranges([0, 4, 5, 6, 9]) == '0, 4-6, 9'


@pytest.mark.parametrize('text', ['0', '-1', 'inf', 'nan', 'soon', ''])
def test_an_invalid_timeout_is_rejected(text, monkeypatch, capsys):
    monkeypatch.setenv('NODE_TIMEOUT', text)
    with pytest.raises(ValueError, match='NODE_TIMEOUT is'):
        launch.node_timeout()
    assert launch.main(['--nnodes=2', '--master_addr=a1', 'train.py']) == 2
    assert f'error: NODE_TIMEOUT is {text!r}' in capsys.readouterr().err


def test_processes_of_torchrun_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(launch.Meeting, 'wait', lambda *_: pytest.fail())
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    distributed.meet()
    monkeypatch.delenv('TORCHELASTIC_RUN_ID')
    monkeypatch.setenv('WORLD_SIZE', '1')
    distributed.meet()


def test_machines_of_slurm_may_be_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))  # without scontrol
    monkeypatch.setenv('SLURM_JOB_NODELIST', 'a[1-2]')
    assert distributed.machines_of_slurm() == []


# Real processes with the variables of a launcher

VARIABLES = dict(
    slurm=lambda rank, world: dict(
        SLURM_PROCID=rank, SLURM_LOCALID=0, SLURM_NTASKS=world,
        SLURM_NNODES=world),
    mpi=lambda rank, world: {
        f'OMPI_COMM_WORLD_{name}': value for name, value in dict(
            RANK=rank, SIZE=world, LOCAL_RANK=0, LOCAL_SIZE=1).items()})


def start(launcher, ranks, world, tmp_path, **env):
    """Start tools/train.py as a launcher starts these of its processes."""
    cfg = toy_config(tmp_path / 'unused', **{'train_cfg.max_epochs': 1})
    cfg.custom_imports.imports = ['hrformer_mm', 'toy']
    cfg.dump(tmp_path / 'config.py')
    env = dict(ENV, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port(), **env)
    return [subprocess.Popen(
        [sys.executable, str(ROOT / 'tools/train.py'),
         str(tmp_path / 'config.py'), '--work-dir', str(tmp_path / 'run'),
         '--launcher', launcher],
        env=dict(env, **{k: str(v) for k, v in VARIABLES[launcher](
            rank, world).items()}), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT) for rank in ranks]  # yapf: disable


@pytest.mark.slow
@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
@pytest.mark.parametrize('ranks', [[0, 2], [1, 2]])
def test_a_training_without_all_its_processes_gives_up(ranks, launcher,
                                                       tmp_path):
    processes = start(launcher, ranks, 3, tmp_path, NODE_TIMEOUT='20')
    for process in processes:
        text = process.communicate(timeout=300)[0]
        assert process.returncode == 2, text
        missing = f'process {({0, 1, 2} - {*ranks}).pop()} of 3 is missing'
        assert f'error: {missing}' in text.splitlines()[-1]
        assert f'waiting: {missing}' in text
    assert not list(tmp_path.glob('run/*.pth'))


@pytest.mark.slow
@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_three_processes_of_a_launcher_train(launcher, tmp_path):
    for process in start(launcher, [0, 1, 2], 3, tmp_path):
        text = process.communicate(timeout=300)[0]
        assert process.returncode == 0, text
    assert (tmp_path / 'run/epoch_1.pth').is_file()
