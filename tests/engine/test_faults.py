# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A training that breaks fails with one line."""
import multiprocessing
import resource
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from helpers import ROOT
from toy import QuietRunner, toy_config, toy_run

from hrformer_mm.engine import train as training
from hrformer_mm.engine.hooks import saving, signals
from hrformer_mm.utils.cli import one_line


@pytest.fixture
def saved(tmp_path):
    """A work dir with checkpoints of two epochs."""
    toy_run(tmp_path, **{'train_cfg.max_epochs': 2})
    return tmp_path


def resumed(folder, **options):
    """Where training continues, and what is logged."""
    cfg = toy_config(folder, resume=True, **options)
    runner = QuietRunner.from_cfg(cfg)
    runner.train()
    log = next(folder.glob(f'{runner.timestamp}/*.log')).read_text()
    return log


# Names in the config


def test_a_metric_that_does_not_exist_is_named_with_the_fix(tmp_path):
    key = 'default_hooks.checkpoint.save_best'
    cfg = toy_config(tmp_path, **{key: 'Value'})
    with pytest.raises(ValueError, match=rf"{key} is 'Value'.*'value'\]; .*"
                       rf'--resume --cfg-options {key}=value'):
        QuietRunner.from_cfg(cfg).train()
    assert 'epoch: 1' in resumed(tmp_path)


# Damaged checkpoints


def test_a_truncated_checkpoint_is_skipped_in_one_line(saved, tmp_path):
    whole = (saved / 'epoch_2.pth').read_bytes()
    (saved / 'epoch_2.pth').write_bytes(whole[:len(whole) * 2 // 3])
    log = resumed(saved)
    (line, ) = [x for x in log.splitlines() if 'not resumed from' in x]
    assert 'epoch_2.pth is cut off' in line
    assert 'resumed epoch: 1, iter: 6' in log


@pytest.mark.parametrize('damage', ['empty', 'zeros', 'flipped', 'gone'])
def test_otherwise_damaged_checkpoints_are_skipped_too(saved, damage):
    file = saved / 'epoch_2.pth'
    content = bytearray(file.read_bytes())
    if damage == 'flipped':
        middle = len(content) // 2
        content[middle] ^= 255
    elif damage == 'zeros':  # as some file systems leave after a crash
        content[len(content) // 2:] = bytes(len(content) - len(content) // 2)
    file.write_bytes(b'' if damage == 'empty' else content)
    if damage == 'gone':
        file.unlink()
    log = resumed(saved)
    assert 'resumed epoch: 1, iter: 6' in log
    assert 'Saving checkpoint at 3 epochs' in log


def test_a_truncated_last_checkpoint_file_is_replaced_by_the_newest(saved):
    (saved / 'last_checkpoint').write_text('')
    assert 'resumed epoch: 2, iter: 12' in resumed(saved)


def test_a_work_dir_can_be_moved(saved, tmp_path_factory):
    moved = saved.rename(tmp_path_factory.mktemp('moved') / 'dir')
    assert 'resumed epoch: 2, iter: 12' in resumed(moved)


def test_only_damaged_checkpoints_are_an_error_and_none_is_a_fresh_start(
        saved, tmp_path):
    for file in saved.glob('*.pth'):
        file.write_bytes(b'PK')
    with pytest.raises(ValueError, match='none of the checkpoints'):
        resumed(saved)
    (tmp_path / 'fresh').mkdir()
    assert 'Saving checkpoint at 1 epochs' in resumed(tmp_path / 'fresh')


# A disk that is full


@contextmanager
def largest_file(size):
    """No file may grow beyond a size; a write then fails like on a full disk.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == 'win32', reason='has no such limit')
@pytest.mark.parametrize('keep', [1, 3])
def test_a_full_disk_keeps_saved_checkpoints(tmp_path, keep):
    large = {'model.ballast': 300000,
             'default_hooks.checkpoint.max_keep_ckpts': keep}
    toy_run(tmp_path, **large, **{'train_cfg.max_epochs': 2})
    before = {p.name: p.read_bytes() for p in tmp_path.glob('*.pth')}
    runner = QuietRunner.from_cfg(toy_config(tmp_path, resume=True, **large))
    with largest_file(600000), pytest.raises(
            saving.NotSavedError, match='checkpoint of step 3') as error:
        runner.train()
    assert 'MiB are free' in str(error.value)
    assert 'epoch_2.pth is kept' in str(error.value)
    after = {p.name: p.read_bytes() for p in tmp_path.glob('*.pth')}
    assert after == before
    assert not list(tmp_path.glob('.*.pth.*'))
    assert 'Saving checkpoint at 3 epochs' in resumed(tmp_path, **large)


def test_the_old_checkpoint_is_deleted_after_the_new_one_is_saved(
        tmp_path, monkeypatch):
    there = []
    put = saving.WholeFileBackend.put

    def spy(self, obj, path):
        there.append(sorted(p.name for p in tmp_path.glob('epoch*.pth')))
        put(self, obj, path)

    monkeypatch.setattr(saving.WholeFileBackend, 'put', spy)
    toy_run(tmp_path, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    assert [] in there and [] not in there[there.index([]) + 1:][1:]
    assert ['epoch_2.pth'] in there
    assert [p.name for p in tmp_path.glob('epoch*')] == ['epoch_3.pth']
    assert len(list(tmp_path.glob('best_*'))) == 1


def test_partial_files_of_a_killed_process_are_deleted(saved):
    (saved / '.epoch_3.pth.abc').write_bytes(b'half')
    resumed(saved)
    assert not list(saved.glob('.*.pth.*'))


# Numbers, data and workers


def test_a_nan_loss_stops_training_before_it_is_saved(saved):
    with pytest.raises(ValueError, match='loss of iteration 14 is nan') as e:
        resumed(saved, **{'model.spoil_at': 1})
    assert 'epoch_2.pth is kept' in str(e.value)
    assert not (saved / 'epoch_3.pth').exists()


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    cfg = toy_config(tmp_path, **{'optim_wrapper.optimizer.lr': 1e38})
    cfg.default_hooks.pop('finite_loss')
    runner = QuietRunner.from_cfg(cfg)
    with pytest.raises(ValueError, match='weights are not finite'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('workers', [0, 1])
def test_a_sample_that_cannot_be_read_is_reported(tmp_path, workers):
    with pytest.raises(ValueError) as error:
        toy_run(tmp_path, workers=workers,
                **{'train_dataloader.dataset.broken': 7})
    assert one_line(error.value).endswith(
        'training sample 7 (7.jpg) cannot be used: OSError image file is '
        'truncated')


DIES = """
from toy import QuietRunner, toy_config
from hrformer_mm import cli, training

@cli.one_line_errors
def main(argv=None):
    cfg = toy_config(argv[0], workers=1)
    cfg.train_dataloader.dataset.update(broken=7, fault='kill')
    training.train(cfg)

if __name__ == '__main__':
    main()
"""


def test_a_dead_worker_fails_the_training_with_one_line(tmp_path):
    done = subprocess.run([sys.executable, '-c', DIES, str(tmp_path)],
                          cwd=ROOT / 'tests', text=True, timeout=300,
                          capture_output=True)
    # Not of all of stderr: the signal may come while Python deletes an object,
    # which prints what is raised there and continues.
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert 'error: a data loader worker died' in last
    assert 'num_workers' in last


def _try_get_data(error):
    """Raise what the torch function of this name raises for a dead worker."""
    raise error


@pytest.mark.parametrize('error', [
    ConnectionResetError('reset by peer'), EOFError(),
    RuntimeError('DataLoader worker (pid 7) is killed')
], ids=lambda e: type(e).__name__)
def test_a_dead_worker_is_reported_for_any_torch_error(monkeypatch, error):
    monkeypatch.setattr(training, 'SIGNAL_WAIT', 0)
    with pytest.raises(RuntimeError, match='a data loader worker died'):
        with training.one_error_for_dead_workers():
            _try_get_data(error)


@pytest.mark.parametrize('error', [OSError('disk is full'),
                                   RuntimeError('shapes differ')],
                         ids=lambda e: type(e).__name__)
def test_other_errors_are_not_taken_for_a_dead_worker(error):
    with pytest.raises(type(error), match=str(error)):
        with training.one_error_for_dead_workers():
            raise error


def a_worker(ready):
    signals.outlive_first_sigterm()
    ready.set()
    time.sleep(60)


def start_worker():
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    worker = context.Process(target=a_worker, args=(ready, ), daemon=True)
    worker.start()
    assert ready.wait(30)
    return worker


def test_a_worker_survives_the_sigterm_of_a_scheduler(monkeypatch):
    monkeypatch.setattr(signals, 'REPEATS', .5)
    worker = start_worker()
    for outlives in (True, False):
        subprocess.run(
            [sys.executable, '-c',
             f'import os; os.kill({worker.pid}, 15)'], check=True)
        worker.join(1 if outlives else 30)
        assert worker.is_alive() == outlives


def test_a_worker_stops_at_once_when_its_process_terminates_it():
    """Or every training would wait for its workers for ever at its end."""
    worker = start_worker()
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0  # others are reported as failures


@pytest.mark.slow
def test_killed_trainings_end_with_the_same_bits(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.fault_trials', '--trials', '9'],
        cwd=ROOT, text=True, timeout=1200, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '9 ended with the same bits' in done.stdout
