# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Switches together: stopped at a random moment and resumed on two processes.

The table of docs/resume-and-clusters.md is made of these cases:

    PYTHONPATH=tests python tests/engine/test_resume_matrix.py  # prints it
"""
import os
import random
import signal
import subprocess
import sys
import time
from itertools import combinations, product
from pathlib import Path

import psutil
import pytest
import torch
from dist_matrix import CASES, SAMPLES, Case
from helpers import ROOT
from tiny_tasks import task_config
from toy import ENV

SWITCHES = dict(with_cp=(False, 'ffn', True), sync_bn=('torch', None),
                compile=(False, True), ema=(False, True), window=(1, 4))
# Statistics of norms that are not synchronised are averaged over processes
# when they are saved. A stop does it once more, which rounds.
TOLERANCE = 1e-5
STATISTICS = ('running_mean', 'running_var')
SEED = int(os.environ.get('MATRIX_SEED', 0))
PATIENCE = 3600  # seconds; compiling takes minutes on a busy machine


def outcome(case: Case) -> str:
    """Return what a stop and a resume leave the same, in words."""
    if case.sync_bn:
        return 'same bits'
    return f'same bits; running statistics within {TOLERANCE:g}'


def table() -> str:
    header = ['with_cp', 'sync_bn', 'compile', 'EMAHook',
              'accumulative_counts', 'config', 'SIGTERM to',
              'weights and optimizer after stop and resume']
    lines = ['| ' + ' | '.join(header) + ' |', '| --- ' * len(header) + '|']
    for c in CASES:
        cells = [repr(c.with_cp), repr(c.sync_bn), 'on' if c.compile else
                 'off', 'on' if c.ema else 'off', c.window, c.task,
                 'one process' if c.signalled == 'process' else
                 'the process group', outcome(c)]  # yapf: disable
        lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    return '\n'.join(lines)


def test_each_pair_of_switches_is_in_a_case():
    for a, b in combinations(SWITCHES, 2):
        there = {(getattr(c, a), getattr(c, b)) for c in CASES}
        assert there == set(product(SWITCHES[a], SWITCHES[b])), (a, b)
    assert {c.signalled for c in CASES} == {'process', 'group'}
    assert {c.task for c in CASES} == {'cls', 'pose', 'seg'}


def test_the_page_has_the_table_of_these_cases():
    page = (ROOT / 'docs/resume-and-clusters.md').read_text()
    assert table() in page


def start(folder: Path, number: int, mode: str, log) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-m', 'hrformer_mm.engine.launch', '--standalone',
         '--nproc_per_node=2', str(ROOT / 'tests/engine/dist_matrix.py'),
         str(folder), str(number), mode], env=ENV, stdout=log,
        stderr=subprocess.STDOUT, start_new_session=True)  # yapf: disable


def code_of(process: subprocess.Popen) -> int:
    """Wait for a job and return its exit code; leave nothing of it behind."""
    try:
        return process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()


def wait_for_beats(path: Path, count: int, process: subprocess.Popen):
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert process.poll() is None, 'it ended before the signal'
        time.sleep(.01)


def send(signalled: str, process: subprocess.Popen):
    """Signal a process that trains, or all of the job as Slurm does."""
    children = psutil.Process(process.pid).children()
    if signalled == 'process':
        random.choice(children).send_signal(signal.SIGTERM)
        return
    every = psutil.Process(process.pid).children(recursive=True)
    for one in [psutil.Process(process.pid), *every]:
        try:
            one.send_signal(signal.SIGTERM)
        except psutil.NoSuchProcess:
            pass


def last_state(folder: Path) -> dict:
    return torch.load((folder / 'last_checkpoint').read_text())


def assert_equal(name: str, a: torch.Tensor, b: torch.Tensor, exact: bool):
    if exact or not name.endswith(STATISTICS):
        assert torch.equal(a, b), name
    else:
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize('number', range(len(CASES)), ids=[
    '-'.join(map(str, vars(c).values())) for c in CASES])
def test_a_stopped_training_ends_like_an_uninterrupted_one(number, tmp_path):
    case, rng = CASES[number], random.Random(SEED * 100 + number)
    task_config(case.task, tmp_path, SAMPLES)  # writes the data
    log_file = tmp_path / 'log.txt'
    with open(log_file, 'w') as log:
        process = start(tmp_path, number, 'stop', log)
        try:
            wait_for_beats(tmp_path / 'stopped.beats', rng.randint(2, 11),
                           process)
            time.sleep(rng.uniform(0, .1))
            send(case.signalled, process)
            assert code_of(process) == 143, log_file.read_text()[-5000:]
        finally:
            process.kill()
        assert 'SIGTERM: stopped after' in log_file.read_text()
        done = code_of(start(tmp_path, number, 'compare', log))
    assert done == 0, log_file.read_text()[-5000:]
    a, b = (last_state(tmp_path / name) for name in ('stopped', 'whole'))
    assert a['meta']['iter'] == b['meta']['iter'] == 10
    for part in ('state_dict', 'ema_state_dict'):
        assert a.get(part, {}).keys() == b.get(part, {}).keys()
        for name, value in b.get(part, {}).items():
            assert_equal(name, a[part][name], value, bool(case.sync_bn))
    for i, state in b['optimizer']['state'].items():
        for name, value in state.items():
            assert_equal(name, a['optimizer']['state'][i][name], value, True)


if __name__ == '__main__':
    print(table())
