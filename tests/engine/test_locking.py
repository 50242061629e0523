# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Two trainings in one work dir, and full disks while logging."""
import errno
import os
import signal
import subprocess
import sys

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from toy import ENV, QuietRunner, toy_config, toy_run

from hrformer_mm.checkpoints.files import replacing
from hrformer_mm.engine import train as training
from hrformer_mm.engine.hooks import locking
from hrformer_mm.utils.cli import one_line

pytest.importorskip('fcntl')

# Locks a folder as a training does, without the imports of one, says so, and
# stays until its input ends.
HOLD = f'''
import fcntl, os, sys
file = open(os.path.join(sys.argv[1], {locking.NAME!r}), 'a+')
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
file.truncate(0)
print(f'process {{os.getpid()}} on host', file=file, flush=True)
print(True, flush=True)
sys.stdin.read()
'''


@pytest.fixture
def other(tmp_path):
    """A process that has locked the folder."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)], env=ENV, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == 'True'
    yield process
    process.kill()
    process.wait()


def test_a_second_training_is_rejected_until_the_first_one_is_killed(
        other, tmp_path):
    (tmp_path / f'.epoch_9.pth.{other.pid}-abc.pth').write_bytes(b'half')
    runner = QuietRunner.from_cfg(toy_config(tmp_path))
    with pytest.raises(ValueError, match='in use by a training') as error:
        runner.train()
    assert f'process {other.pid} on ' in one_line(error.value)
    assert '--work-dir' in one_line(error.value)
    assert list(tmp_path.glob('.epoch_9*')), 'of the other training'
    assert not list(tmp_path.glob('epoch_*'))
    other.send_signal(signal.SIGKILL)
    other.wait()
    toy_run(tmp_path)
    assert (tmp_path / 'epoch_3.pth').is_file()
    assert not list(tmp_path.glob('.*.pth.*'))


def test_an_evaluation_may_run_beside_a_training(other, tmp_path):
    cfg = toy_config(tmp_path)
    cfg.test_dataloader, cfg.test_evaluator = (cfg.val_dataloader,
                                               cfg.val_evaluator)
    cfg.test_cfg = dict()
    assert QuietRunner.from_cfg(cfg).test()['count'] == 12


def test_a_training_releases_its_folder(tmp_path):
    toy_run(tmp_path, **{'train_cfg.max_epochs': 1})
    assert os.path.realpath(tmp_path) not in locking.held
    command = [sys.executable, '-c', HOLD, str(tmp_path)]
    done = subprocess.run(command, env=ENV, text=True, input='',
                          capture_output=True)
    assert done.stdout.strip() == 'True', done.stderr


def test_a_file_that_a_running_process_writes_is_kept(tmp_path):
    with replacing(tmp_path / 'published.pth') as temporary:
        assert locking.writer_of(temporary) == os.getpid()
        (tmp_path / '.epoch_1.pth.abc').write_bytes(b'without a process')
        (tmp_path / '.epoch_2.pth.99999999-abc.pth').write_bytes(b'ended')
        locking.remove_leftovers(str(tmp_path))
        assert list(tmp_path.glob('.*.pth.*')) == [temporary]


def test_a_system_without_locks_gets_a_warning(tmp_path, monkeypatch):

    def lockf(*args):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(locking.fcntl, 'lockf', lockf)
    toy_run(tmp_path, **{'train_cfg.max_epochs': 1})
    (log, ) = tmp_path.glob('*/*.log')
    assert 'cannot be locked on this system' in log.read_text()


@HOOKS.register_module()
class FillDisk(Hook):
    """Let the second line of the log of values fail as on a full disk."""

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 1:
            (backend, ) = runner.visualizer._vis_backends.values()
            backend._dump = self.fail

    def fail(self, *args):
        with open('/dev/full', 'w') as file:
            file.write('x')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='Linux only')
def test_a_disk_that_is_full_while_logging_is_reported(tmp_path):
    cfg = toy_config(tmp_path, custom_hooks=[dict(type='FillDisk')])
    cfg.visualizer = dict(type='Visualizer', name=cfg.experiment_name,
                          vis_backends=[dict(type='LocalVisBackend')])
    with pytest.raises(OSError) as error:
        training.train(cfg)
    text = one_line(error.value)
    assert f'a log could not be written below {tmp_path}' in text
    assert 'No space left on device' in text and '--resume' in text


def test_other_file_errors_are_not_changed(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, 'no', 'file'),
                  OSError(errno.ENOSPC, 'full', 'file'), OSError('text')):
        with pytest.raises(OSError) as found:
            with training.one_error_for_full_disks(str(tmp_path)):
                raise error
        assert found.value is error


def test_a_process_that_survives_an_error_releases_its_folder(tmp_path):
    with pytest.raises(ValueError, match='is nan'):
        training.train(toy_config(tmp_path, **{'model.spoil_at': 1}))
    assert not locking.held
