# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""--resume on fewer or more processes than the checkpoint was made with."""
import json
import subprocess
import sys

import pytest
import torch
from dist_resume import CASES, EPOCHS, name, run
from helpers import ROOT
from toy import BATCH, ENV, SAMPLES

pytestmark = pytest.mark.slow  # four launches of several processes


def launch(world, folder, stage):
    done = subprocess.run(
        [sys.executable, '-m', 'hrformer_mm.engine.launch', '--standalone',
         f'--nproc_per_node={world}',
         ROOT / 'tests/engine/dist_resume.py', folder,
         stage], env=ENV, timeout=600, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)  # yapf: disable
    assert done.returncode == 0, done.stdout[-3000:]


def batch_of(kind, world):
    """Return the batch of one process."""
    return BATCH if kind == 'same batch' else BATCH * world


@pytest.fixture(scope='module', params=[2, 3])
def trained(request, tmp_path_factory):
    """Number of processes, and the folder of all trainings.

    Those that are resumed on one process, those that are resumed on several,
    and trainings of one process that are not stopped.
    """
    world, folder = request.param, tmp_path_factory.mktemp('resumed')
    launch(world, folder, 'start')
    for case in CASES:
        by_epoch, batch = case[0], batch_of(case[1], world)
        run(folder / name('fewer', case), by_epoch, batch, resume=True)
        run(folder / name('more', case), by_epoch, batch,
            SAMPLES + BATCH * world)
        run(folder / name('whole', case), by_epoch, batch)
    launch(world, folder, 'resume')
    return world, folder


def read(folder, world):
    """Return the rates and the draws that processes recorded."""
    rates, draws = {}, []
    for rank in range(world):
        rates, more = json.loads(
            (folder / f'record_{world}_{rank}.json').read_text())
        draws += map(tuple, more)
    return {int(i): rate for i, rate in rates.items()}, draws


def weights(folder):
    return torch.load((folder / 'last_checkpoint').read_text())['state_dict']


def assert_each_sample_is_used_once(draws, by_epoch):
    expected = [(e, i) for e in range(EPOCHS) for i in range(SAMPLES)]
    if not by_epoch:  # the numbers of an endless sampler
        expected = [(0, i) for i in range(EPOCHS * SAMPLES)]
    assert sorted(draws) == expected


@pytest.mark.parametrize('case', CASES, ids=str)
def test_on_one_process_training_continues_at_the_same_sample(case, trained):
    (by_epoch, kind), (world, folder) = case, trained
    there, here = (read(folder / name('fewer', case), w) for w in (world, 1))
    assert_each_sample_is_used_once(there[1] + here[1], by_epoch)
    begin = (SAMPLES + BATCH * world) // batch_of(kind, world)
    whole, _ = read(folder / name('whole', case), 1)
    assert here[0] == {i: whole[i] for i in whole if i >= begin}
    if kind == 'same total':
        torch.testing.assert_close(
            weights(folder / name('fewer', case)),
            weights(folder / name('whole', case)), rtol=0, atol=1e-5)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_on_several_processes_training_continues_at_the_same_sample(
        case, trained):
    (by_epoch, kind), (world, folder) = case, trained
    there, here = (read(folder / name('more', case), w) for w in (1, world))
    assert_each_sample_is_used_once(there[1] + here[1], by_epoch)
    # The rates of one process with the batch of all.
    total = (by_epoch, 'same total')
    whole, _ = read(folder / name('whole', total), 1)
    begin = SAMPLES // (BATCH * world) + 1
    assert here[0] == {i: whole[i] for i in whole if i >= begin}
    if kind == 'same total':
        torch.testing.assert_close(
            weights(folder / name('more', case)),
            weights(folder / name('whole', case)), rtol=0, atol=1e-5)
