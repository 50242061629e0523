# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from socket import gethostname
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers import ROOT, SHARED
from mmengine.config import Config

pytest.importorskip('mmpose')

from benchmarks.overfit import overfit  # noqa: E402
from hrformer_mm.quickstart import pose, progress  # noqa: E402
from hrformer_mm.quickstart import runner as common  # noqa: E402
from hrformer_mm.utils.io import read_history  # noqa: E402
from hrformer_mm.visualization import figures as pictures  # noqa: E402

TASK = pose.TASK
SMALL = dict(
    images=(12, 4),
    epochs=2,
    cfg_options={
        f'{name}_dataloader.{key}': value
        for name in ('train', 'val')
        for key, value in (('num_workers', 0), ('persistent_workers', False),
                           ('batch_size', 8))
    })


class Killed(BaseException):
    """Stands for the end of the process."""


class Terminal(io.StringIO):
    """A stream that can be killed after a number of evaluations."""

    def __init__(self, until=None, is_terminal=False):
        super().__init__()
        self.until, self.is_terminal = until, is_terminal

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        super().write(text)
        if self.until and self.getvalue().count('AP') >= self.until:
            raise Killed


def tool(name, *args):
    """Run a tool in this process and give its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *map(str, args)])
        try:
            runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
        except SystemExit as end:
            return end.code or 0
    return 0


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A quickstart that is killed after its first epoch, and its second start.

    Returns the outcome, the output of the first time and the second time.
    """
    folder = tmp_path_factory.mktemp('quickstart')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first, second = Terminal(until=1), Terminal(is_terminal=True)
        with pytest.raises(Killed):
            common.run(TASK, stream=first, **SMALL)
        outcome = common.run(TASK, stream=second, **SMALL)
        yield SimpleNamespace(
            folder=folder, outcome=outcome, first=first.getvalue(),
            second=second.getvalue())


def records(outcome):
    return read_history(outcome.work_dir / common.HISTORY)


def test_a_killed_quickstart_continues_from_its_checkpoint(finished):
    assert 'continuing with the interrupted quickstart' in finished.second
    assert 'making' in finished.first and 'making' not in finished.second
    steps = [r['iter'] for r in records(finished.outcome) if 'loss' in r]
    assert steps == list(range(1, 7))  # 2 epochs of ceil(about 20 / 8)
    log = (finished.outcome.work_dir / common.LOG).read_text()
    assert 'resumed epoch: 1' in log


def test_the_quickstart_writes_metrics_pictures_and_a_checkpoint(finished):
    outcome = finished.outcome
    assert 0 <= outcome.metrics['coco/AP'] <= 1
    assert outcome.checkpoint.name == 'epoch_2.pth'
    assert outcome.checkpoint.exists()
    assert [p.name for p in outcome.pictures] == [
        'predictions.png', 'curves.png']
    for path in outcome.pictures:
        image = cv2.imread(str(path))
        assert image.shape[1] > 800 and image.std() > 10
    cfg = Config.fromfile(outcome.config)
    assert cfg.resume is False and cfg.load_from is None


def test_output_files_and_next_commands_are_printed(finished):
    for path in (*finished.outcome.pictures, finished.outcome.checkpoint):
        assert str(path) in finished.second
    commands = TASK.next_commands(finished.outcome)
    assert len(commands) == 3
    for command in commands:  # tools and configs lie elsewhere
        assert command.rpartition('/')[2] in finished.second


def test_commands_fit_the_folder_they_are_shown_in(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    command = 'python tools/test.py configs/pose/x.py tools.pth'
    assert common.from_here(command) == command
    monkeypatch.chdir(tmp_path)
    assert common.from_here(command) == (
        f'python {ROOT}/tools/test.py {ROOT}/configs/pose/x.py tools.pth')


def test_the_first_next_command_repeats_the_figure(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    command = TASK.next_commands(finished.outcome)[0].split()
    assert command[:2] == ['python', 'tools/test.py']
    assert tool('test.py', *command[2:], '--work-dir', 'tested', '--out',
                'metrics.json') == 0  # yapf: disable
    metrics = json.loads((finished.folder / 'metrics.json').read_text())
    assert metrics['coco/AP'] == pytest.approx(
        finished.outcome.metrics['coco/AP'])


def test_the_second_next_command_trains_a_config_that_is_there(finished):
    command = TASK.next_commands(finished.outcome)[1].split()
    assert command[:3] == [
        'python', 'tools/train.py',
        str(finished.outcome.config)]
    assert '--cfg-options' in command


def test_a_finished_run_is_kept_and_the_next_gets_its_own_folder(finished):
    text = []
    state = json.loads(
        (finished.folder / finished.outcome.work_dir /
         common.STATE).read_text())
    wanted = finished.folder / finished.outcome.work_dir
    chosen = common.choose_work_dir(wanted, state['request'], text.append)
    assert chosen.name == f'{wanted.name}_2'
    assert 'is kept' in text[0]


def interrupted(folder, process):
    folder.mkdir()
    common.write_whole(
        folder / common.STATE, dict(request=dict(seed=0), process=process))
    return folder


def test_another_request_does_not_continue_with_an_interrupted_one(tmp_path):
    wanted = interrupted(tmp_path / 'run', 'elsewhere 1')
    report = [].append
    assert common.choose_work_dir(wanted, dict(seed=0), report) == wanted
    assert common.choose_work_dir(wanted, dict(seed=1), report) != wanted


def test_concurrent_runs_do_not_share_a_folder(tmp_path):
    sleeper = subprocess.Popen(['sleep', '60'])
    process = f'{gethostname()} {sleeper.pid}'
    wanted = interrupted(tmp_path / 'run', process)
    report = [].append
    assert common.choose_work_dir(wanted, dict(seed=0), report) != wanted
    sleeper.kill()
    sleeper.wait()
    assert common.choose_work_dir(wanted, dict(seed=0), report) == wanted


def test_a_folder_with_something_else_is_not_used(tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'thesis.txt').write_text('mine')
    chosen = common.choose_work_dir(tmp_path / 'run', {}, [].append)
    assert chosen == tmp_path / 'run_2'


def make_two(root, train, val, seed):
    (root / 'train').write_text(str(train))
    (root / 'val').write_text(str(val))


def test_data_is_generated_once(tmp_path):
    made = []
    task = replace(TASK, make_data=lambda *a: made.append(make_two(*a)))
    for _ in range(2):
        common.provide_data(task, tmp_path / 'data', (2, 1), 0, [].append)
    assert len(made) == 1
    newer = replace(task, data_version=2)
    common.provide_data(newer, tmp_path / 'data', (2, 1), 0, [].append)
    assert len(made) == 2
    assert [p.name for p in tmp_path.iterdir()] == ['data']


def test_incomplete_data_is_not_taken_for_data(tmp_path):

    def stop(root, train, val, seed):
        (root / 'train').write_text('half')
        raise Killed

    with pytest.raises(Killed):
        common.provide_data(
            replace(TASK, make_data=stop), tmp_path / 'data', (2, 1), 0,
            [].append)
    assert not list(tmp_path.iterdir())


def test_foreign_data_is_not_overwritten(tmp_path):
    (tmp_path / 'mine.jpg').write_text('')
    with pytest.raises(ValueError, match='--data-root'):
        common.provide_data(TASK, tmp_path, (2, 1), 0, [].append)


def test_a_real_dataset_replaces_the_generated_one(finished):
    cfg = common.read_config(str(ROOT / 'configs' / TASK.config))
    data = str(finished.folder / finished.outcome.data_root)
    common.fill_config(TASK, cfg, data, None, (5, 4), 0, None, [].append)
    assert 'data/people' not in cfg.pretty_text.replace(data, '')
    assert cfg.train_dataloader.dataset.data_root.startswith(data)
    assert cfg.train_dataloader.dataset.indices == 5
    assert not cfg.val_dataloader.dataset.get('bbox_file')


def test_a_data_root_without_its_files_fails_with_one_line(tmp_path, capsys):
    assert tool('quickstart.py', '--data-root', tmp_path) == 2
    error = capsys.readouterr().err
    assert 'person_keypoints_val2017.json' in error
    assert error.count('\n') == 1


def test_counts_below_one_fail_with_one_line(capsys):
    assert tool('quickstart.py', '--epochs', 0) == 2
    assert capsys.readouterr().err == (
        'error: epochs must be at least 1, got 0\n')


def test_help_has_examples(capsys):
    assert tool('quickstart.py', '--help') == 0
    text = capsys.readouterr().out
    for word in ('--task', '--data-root', '--epochs', 'examples', 'COCO'):
        assert word in text


def test_schedules_end_with_the_epochs():
    cfg = common.read_config(str(ROOT / 'configs' / TASK.config))
    cfg.param_scheduler[1].update(T_max=cfg.train_cfg.max_epochs)
    common.set_epochs(cfg, 25)
    assert cfg.train_cfg.max_epochs == 25 and cfg.train_cfg.val_interval == 3
    assert cfg.default_hooks.checkpoint.interval == 3
    assert cfg.param_scheduler[1].T_max == 25


def test_progress_is_one_line_in_a_terminal_and_few_in_a_file(finished):
    line = finished.second.split('output of the frameworks')[1]
    line = line.split('\n')[1]
    assert line.count('\r') >= 3 and 'eta' in line and '6/6' in line
    assert '\r' not in finished.first


def test_an_incomplete_log_record_is_skipped(tmp_path):
    path = tmp_path / 'history.jsonl'
    path.write_text('{"iter": 1, "loss": 2.0}\n{"iter": 2, "lo')
    assert read_history(path) == [dict(iter=1, loss=2.)]
    assert read_history(path, until=0) == []


@pytest.mark.parametrize('seconds, text', [(7, '0:07'), (3723, '1:02:03')])
def test_time_is_written_as_on_a_clock(seconds, text):
    assert progress.clock(seconds) == text


def test_rows_of_pictures_fill_the_width():
    images = [np.zeros((40, w, 3), np.uint8) for w in (80, 30, 60, 60)]
    picture = pictures.mosaic(images, '', width=300, height=50)
    dark = (picture.sum(2) == 0).any(0)
    assert picture.shape[1] == 300 and dark[10] and dark[285]


def generated(folder):
    """Options that name the made people's training images."""
    from hrformer_mm.quickstart.synthetic.people import make_people
    make_people(folder, 4, 1, seed=5)
    return {}


@pytest.mark.slow
def test_overfit_trains_and_evaluates_on_the_same_images(tmp_path, capsys):
    options = generated(tmp_path / 'data')
    report = overfit(
        str(ROOT / 'configs' / TASK.config), str(tmp_path / 'run'),
        str(tmp_path / 'data'), iters=2, batch_size=4, cfg_options=options)
    assert report['metric'] == 'coco/AP' and report['loss'] > 0
    assert '] 2/2  loss' in capsys.readouterr().out
    cfg = Config.fromfile(tmp_path / 'run' / f'{TASK.config[5:]}')
    train, val = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    assert train.ann_file == val.ann_file and 'train' in val.ann_file
    assert not any('Random' in t.type for t in train.pipeline)
    assert (tmp_path / 'run' / 'overfit.json').exists()


@pytest.mark.slow
def test_generated_people_are_overfit(tmp_path):
    options = generated(tmp_path / 'data')
    report = overfit(
        str(ROOT / 'configs' / TASK.config), str(tmp_path / 'run'),
        str(tmp_path / 'data'), cfg_options=options)
    assert report['value'] >= 0.9


@pytest.mark.slow
@pytest.mark.skipif(
    not (SHARED / 'data/coco_mini').exists(),
    reason='the four images of COCO are not beside the checkout')
def test_real_people_are_overfit(tmp_path):
    dataset = 'train_dataloader.dataset'
    report = overfit(
        str(ROOT / 'configs/pose/hrformer_t_coco_256x192.py'),
        str(tmp_path / 'run'),
        str(SHARED / 'data/coco_mini'),
        cfg_options={
            f'{dataset}.ann_file': 'person_keypoints.json',
            f'{dataset}.data_prefix.img': 'images/'
        })
    assert report['value'] >= 0.9


@pytest.mark.slow
def test_sigterm_ends_the_quickstart_with_one_line(tmp_path):
    """Also in an evaluation, whose workers end with it."""
    command = [
        sys.executable,
        str(ROOT / 'tools/quickstart.py'), '--epochs', '1', '--train-images',
        '8', '--val-images', '60', '--cfg-options',
        'val_dataloader.batch_size=1'
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    history = tmp_path / 'work_dirs/quickstart_pose' / common.HISTORY
    while not (history.exists() and 'loss' in history.read_text()):
        assert process.poll() is None
        time.sleep(.1)
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert errors.strip() == (
        'stopped; the same command continues from the last checkpoint')


@pytest.mark.slow
def test_the_quickstart_learns_after_a_kill(tmp_path):
    """The whole of it, in processes of their own, killed once by SIGKILL."""
    command = [sys.executable, str(ROOT / 'tools/quickstart.py')]
    work_dir = tmp_path / 'work_dirs/quickstart_pose'
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    while not (work_dir / 'last_checkpoint').exists():
        assert process.poll() is None
        time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)  # workers too
    process.wait()
    text = subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True,
        text=True).stdout
    assert 'continuing with the interrupted quickstart' in text
    state = json.loads((work_dir / common.STATE).read_text())
    assert state['metrics']['coco/AP'] >= 0.6
