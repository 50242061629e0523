# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The chain of commands of a config, and running it."""
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, write_tiny_coco

from hrformer_mm import zoo
from hrformer_mm.zoo.reproduce import (
    describe_plan,
    make_plan,
    measure_step,
    run_plan,
)
from hrformer_mm.zoo.reproduce.report import gpu_hours

NAME = 'hrformer_b_coco_384x288'
TINY_ARCH = dict(_delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
                 modules=(1, 1, 1), blocks=1)  # yapf: disable


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder without data and weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HRFORMER_MM_WEIGHTS', str(tmp_path / 'weights'))
    monkeypatch.delenv('HRFORMER_MM_MIRROR', raising=False)
    return tmp_path


@pytest.fixture
def weights(here):
    """Puts an empty file into the folder of weights."""
    (here / 'weights').mkdir()
    return lambda name: (here / 'weights' / name).touch()


def words(step):
    return ' '.join(step.command)


def test_chain_pretrains_trains_and_tests(here):
    first, second, third = make_plan(NAME).steps
    assert 'dist_train.sh' in words(first)
    assert 'hrformer_b_imagenet_224.py 8 ' in words(first)
    made = Path('work_dirs/hrformer_b_imagenet_224/epoch_300.pth')
    assert first.makes == made
    assert f'{NAME}.py 8 --work-dir work_dirs/{NAME} --resume' in words(second)
    assert f'init_cfg.checkpoint={made}' in words(second)
    assert 'batch_size' not in words(second)  # 16 on 8 GPUs is the recipe
    assert f'{NAME}.py work_dirs/{NAME}/epoch_210.pth 8 ' in words(third)
    assert third.makes == Path(f'work_dirs/{NAME}/test.json')


def test_existing_weights_skip_the_pretraining(weights):
    weights('hrt_base.pth')
    assert [s.name for s in make_plan(NAME).steps] == ['training', 'test']
    assert len(make_plan(NAME, from_scratch=True).steps) == 3
    assert 'hrt_base' not in ' '.join(make_plan(NAME).needs)


def test_missing_third_party_weights_are_listed(here, weights):
    name = 'hrnet_w48_coco_256x192'
    assert 'weights/hrnetv2_w48_imagenet_pretrained.pth' in ' '.join(
        make_plan(name).needs)
    weights('hrnetv2_w48_imagenet_pretrained.pth')
    needs = make_plan(name).needs
    assert len(needs) == 1 and needs[0].startswith('data/coco/: COCO data')
    assert make_plan(name, data_root=str(here)).needs == ()


def test_planning_downloads_nothing(here, monkeypatch):
    monkeypatch.setenv('HRFORMER_MM_MIRROR', 'http://127.0.0.1:9/nothing')
    assert [s.name for s in make_plan(NAME).steps] == ['training', 'test']


def test_segmentation_is_tested_with_scales_and_flips_as_well(weights):
    weights('hrt_small.pth')
    steps = make_plan('hrformer_s_cityscapes_512x1024').steps
    assert [s.name for s in steps] == [
        'training', 'test', 'test with several scales and flips'
    ]
    assert '--tta' not in words(steps[1]) and '--tta' in words(steps[2])
    assert all('iter_80000.pth' in words(s) for s in steps[1:])
    assert steps[0].iterations == 80000


def test_test_dev_uses_the_training_of_its_val_config(weights):
    weights('hrt_base.pth')
    training, test = make_plan(f'{NAME}_testdev').steps
    assert training == make_plan(NAME).steps[0]
    assert f'{NAME}_testdev.py work_dirs/{NAME}/epoch_210.pth' in words(test)
    assert test.makes.name == 'test-dev2017.keypoints.json'


def test_batch_stays_that_of_the_recipe(weights):
    weights('hrt_base.pth')
    training = make_plan(NAME, gpus=4).steps[0]
    assert 'train_dataloader.batch_size=32' in words(training)
    assert training.iterations == make_plan(NAME).steps[0].iterations
    single = make_plan(NAME, gpus=1).steps[0].command
    assert single[0] == 'python' and single[1].endswith('tools/train.py')
    with pytest.raises(ValueError, match='cannot share equally'):
        make_plan(NAME, gpus=3)


def test_gpu_hours_are_iterations_times_a_measured_step(weights):
    weights('hrt_base.pth')
    plan = make_plan(NAME)
    training = plan.steps[0]
    assert training.iterations == 210 * 1171  # 149813 people in 128s, up
    hours = 210 * 1171 * .5 * 8 / 3600
    assert gpu_hours(training, 8, .5) == pytest.approx(hours)
    assert f'about {hours:.0f} GPU hours, an estimate' in describe_plan(
        plan, .5)
    assert 'nothing was measured' in describe_plan(plan)


def test_options_reach_training_and_test_but_not_the_pretraining(here):
    plan = make_plan(NAME, options={'train_cfg.max_epochs': 2,
                                    'env_cfg': None})
    assert 'max_epochs' not in words(plan.steps[0])
    assert all('train_cfg.max_epochs=2' in words(s) for s in plan.steps[1:])
    assert plan.steps[1].makes.name == 'epoch_2.pth'


@pytest.mark.parametrize('arguments, match', [
    (('hrformer_b_coco', ), 'Did you mean'),
    (('hrformer_s_coco_256x192', 0), 'at least 1'),
])
def test_errors_list_the_choices(arguments, match, here):
    with pytest.raises(ValueError, match=match):
        make_plan(*arguments)


@pytest.mark.slow
def test_every_entry_with_a_config_has_a_chain(here):
    for entry in zoo.list_entries():
        if entry.config:
            plan = make_plan(entry.name)
            assert 'training' in [s.name for s in plan.steps]
            assert entry.name in describe_plan(plan)


class Commands:
    """Stands for the machine: makes the files of commands until it fails."""

    def __init__(self, plan, metrics, fail_at=None):
        self.plan, self.metrics, self.fail_at = plan, metrics, fail_at
        self.ran = []

    def __call__(self, command, env):
        assert command[0] in (sys.executable, 'bash')
        assert env['PYTHON'] == sys.executable  # for the scripts
        step = next(s for s in self.plan.steps if s.command[1:] == command[1:])
        self.ran.append(step.name)
        if step.name == self.fail_at:
            return subprocess.CompletedProcess(command, 1)
        step.makes.parent.mkdir(parents=True, exist_ok=True)
        step.makes.write_text(json.dumps(self.metrics))
        return subprocess.CompletedProcess(command, 0)


def test_run_continues_where_it_was_stopped(here, monkeypatch):
    plan = make_plan(NAME, data_root=str(here), imagenet=str(here))
    machine = Commands(plan, {'coco/AP': .7654, 'coco/AR': .8}, 'training')
    monkeypatch.setattr(subprocess, 'run', machine)
    with pytest.raises(RuntimeError, match='training ended with code 1'):
        run_plan(plan, lambda text: None)
    assert machine.ran == [plan.steps[0].name, 'training']
    machine.ran, machine.fail_at = [], None
    printed = []
    run_plan(plan, printed.append)
    assert machine.ran == ['training', 'test']
    assert 'done' in printed[0]
    table = printed[-1].splitlines()
    assert 'paper, Table 3' in table[0] and 'here' in table[0]
    (line, ) = [row for row in table if row.startswith('| AP ')]
    assert '77.2' in line and '76.54' in line


def test_run_fails_before_it_starts_if_something_is_missing(here):
    with pytest.raises(FileNotFoundError, match='data/coco.*data/imagenet'):
        run_plan(make_plan(NAME))
    with pytest.raises(FileNotFoundError, match='data/imagenet'):
        run_plan(make_plan(NAME, data_root=str(here)))


def test_a_command_without_its_output_is_not_taken_for_done(here, monkeypatch):
    plan = make_plan(NAME, data_root=str(here), imagenet=str(here))
    monkeypatch.setattr(
        subprocess, 'run',
        lambda command, env: subprocess.CompletedProcess(command, 0))
    with pytest.raises(RuntimeError, match='without work_dirs'):
        run_plan(plan)


def tool(*arguments):
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))['main'](
        list(arguments))


def test_tool_prints_the_chain_and_the_paper(here, capsys):
    tool(NAME, '--step-seconds', '0.5')
    out = capsys.readouterr().out
    assert '1. pretraining on ImageNet' in out and 'paper, Table 3' in out
    assert 'GPU hours, an estimate from steps of 0.500 s' in out
    with pytest.raises(SystemExit) as ended:
        tool('hrformer_x_coco_256x192')
    assert ended.value.code == 2
    assert 'hrformer_x_coco_256x192' in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        tool('--help')
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in (
        '--run', '--gpus', '--imagenet', '--measure', 'examples:'))


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_a_step_is_measured_on_both_kinds_of_devices(here, device, capsys,
                                                     monkeypatch):
    """A GPU is given the whole batch; the CPU's two samples are scaled."""
    pytest.importorskip('mmpose')
    plan = make_plan('hrformer_t_coco_256x192', gpus=1)
    options = {
        'model.backbone.arch': TINY_ARCH,
        'model.head.in_channels': 8,
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False
    }
    monkeypatch.setattr(sys.modules[run_plan.__module__], 'get_device',
                        lambda: device)
    seconds = measure_step(plan, str(write_tiny_coco(here / 'coco')), options)
    assert 0 < seconds < 60
    assert f'a step of 4 samples took {seconds:.3f} s on one {device}' in (
        capsys.readouterr().out)


@pytest.mark.slow
def test_a_chain_is_measured_run_and_not_run_twice(here, capfd, monkeypatch):
    pytest.importorskip('mmpose')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    data = write_tiny_coco(here / 'coco')
    arguments = [
        'hrformer_t_coco_256x192', '--gpus', '1', '--data-root',
        str(data), '--run', '--cfg-options', 'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1', 'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.persistent_workers=False',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        'model.backbone.init_cfg=None'
    ]
    tool(*arguments, '--measure')
    out = capfd.readouterr().out
    assert 'a step of 2 samples took' in out and '| AP ' in out
    assert Path('work_dirs/hrformer_t_coco_256x192/test.json').exists()
    tool(*arguments)
    out = capfd.readouterr().out
    assert '1. training: done' in out and '2. test: done' in out


@pytest.mark.parametrize('seconds', ['0', '-1', 'nan'])
def test_steps_must_take_time(seconds, capsys):
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(ROOT / 'tools/reproduce.py'))['main'](
            [NAME, f'--step-seconds={seconds}'])
    assert error.value.code == 2
    assert 'must be more than 0' in capsys.readouterr().err
