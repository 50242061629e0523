# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A dry run reports all errors of a training and the resources it needs."""
import io
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from foreign import TINY
from helpers import CONFIGS, ROOT, tiny_config, write_tiny_coco
from image_folders import write_images
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from seg_data import write_tiny
from torch import nn

from hrformer_mm.core import HRFormer
from hrformer_mm.engine import preflight
from hrformer_mm.engine.preflight import inputs, steps
from hrformer_mm.utils import costs

CONFIG_FILES = dict(pose='pose/hrformer_t_coco_256x192.py',
                    seg='seg/hrformer_s_cityscapes_512x1024.py',
                    cls='cls/hrformer_t_imagenet_224.py')
ARCH = dict(_delete_=True, channels=TINY.channels, heads=TINY.heads,
            modules=TINY.modules, blocks=1)
SMALL = dict(
    pose={'model.head.in_channels': TINY.channels[0]},
    seg={'model.decode_head.in_channels': TINY.channels,
         'model.decode_head.channels': 16,
         'model.decode_head.ocr_channels': 8,
         'model.data_preprocessor.size': (32, 64)},
    cls={'model.neck.in_channels': TINY.channels,
         'model.head.num_classes': 2,
         'model.data_preprocessor.num_classes': 2,
         'val_evaluator.topk': (1, ),
         **{f'{part}_dataloader.dataset.metainfo': dict(classes=('a', 'b'))
            for part in ('train', 'val')}})


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    write_tiny_coco(folder / 'pose')
    write_tiny('cityscapes', folder / 'seg')
    write_images(folder / 'cls', 'folders')
    return folder


def small_config(task, data, work_dir, **options):
    """Return a small config of a task for CPU, with options merged last."""
    cfg = tiny_config(CONFIG_FILES[task], work_dir, data / task,
                      **{'model.backbone.arch': ARCH}, **SMALL[task],
                      **options)
    cfg.load_from = None
    for step in cfg.train_dataloader.dataset.pipeline:
        if 'crop_size' in step:
            step.crop_size = (32, 64)
    return cfg


def dry_run(cfg, quick=False):
    """Return exit code and lines of a dry run."""
    stream = io.StringIO()
    code = preflight.preflight(cfg, stream, quick)
    return code, stream.getvalue().splitlines()


@pytest.fixture
def only(monkeypatch):
    """Return a function that restricts dry runs to some checks."""
    def restrict(*names):
        monkeypatch.setattr(preflight, 'CHECKS', [
            check for check in preflight.CHECKS
            if check.__name__.removeprefix('check_') in names])

    return restrict


def state_of(lines, what):
    """States of the lines about one thing."""
    return [line.split()[0] for line in lines if line.split()[1:2] == [what]]


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_a_valid_run_of_every_task_is_ready(task, data, tmp_path):
    cfg = small_config(task, data, tmp_path / 'work')
    code, lines = dry_run(cfg)
    assert code == 0, lines
    assert lines[-1].startswith('ready to train: 0 errors, ')
    assert not state_of(lines, 'FAIL') and not state_of(lines, 'skip')
    checks = {check.__name__[len('check_'):] for check in preflight.CHECKS}
    assert {line.split()[1] for line in lines[:-1]
            if not line.startswith(' ')} == checks
    assert not (tmp_path / 'work').exists()


def test_a_quick_dry_run_checks_config_paths_and_weights(data, tmp_path):
    cfg = small_config('cls', data, tmp_path / 'work')
    code, lines = dry_run(cfg, quick=True)
    assert code == 0
    assert lines[-1].startswith('config, paths and weights are valid: 0 err')
    assert {line.split()[1] for line in lines[:-1]
            if not line.startswith(' ')} == {
                'config', 'machine', 'data', 'weights'}
    cfg.train_dataloader.dataset.data_root = 'nowhere'
    cfg.load_from, cfg.val_evaluator.type = 'nothing.pth', 'Accurate'
    code, lines = dry_run(cfg, quick=True)
    assert code == 1 and lines[-1].startswith('this run would fail: ')
    for what in ('config', 'data', 'weights'):
        assert 'FAIL' in state_of(lines, what), what


def test_all_errors_are_reported_at_once(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('HRFORMER_MM_MIRROR', raising=False)
    wall = tmp_path / 'file'
    wall.write_text('')
    cfg = small_config('pose', data, wall / 'work', **{
        'val_dataloader.dataset.bbox_file': 'nowhere.json',
        'default_hooks.timer.type': 'IterTimer',
        'optim_wrapper.optimizer.lt': 3,
        'val_evaluator.type': 'CocoMetrics'})
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint='hrt_none.pth')
    code, lines = dry_run(cfg)
    text = '\n'.join(lines)
    assert code == 1 and lines[-1].startswith('this run would fail: ')
    for words in ('nowhere.json', 'IterTimer is not in', "'lt'",
                  'default_hooks.timer.type: ', 'CocoMetrics is not in',
                  'weights/hrt_none.pth', 'is not writable',
                  '--work-dir'):
        assert words in text, words
    assert int(lines[-1].split()[4]) == text.count('FAIL') == 6
    assert 'Traceback' not in text


def test_data_are_checked_even_if_the_model_cannot_be_built(data, tmp_path):
    cfg = small_config('pose', data, tmp_path,
                       **{'model.backbone.window_size': 0})
    code, lines = dry_run(cfg)
    assert code == 1
    assert state_of(lines, 'config') == ['FAIL']
    assert 'FAIL' not in state_of(lines, 'data')
    for what in ('weights', 'step', 'memory', 'time', 'disk'):
        assert state_of(lines, what) == ['skip'], what


def test_a_metric_that_evaluation_does_not_return_is_found(data, tmp_path,
                                                           only):
    only('config', 'machine', 'data', 'step', 'evaluation')
    cfg = small_config('pose', data, tmp_path,
                       **{'default_hooks.checkpoint.save_best': 'coco/ap'})
    code, lines = dry_run(cfg)
    assert code == 1 and state_of(lines, 'evaluation') == ['FAIL']
    assert any('-> default_hooks.checkpoint.save_best=coco/AP' in line
               for line in lines)


def test_a_nan_loss_is_found(data, tmp_path, only):
    only('config', 'machine', 'data', 'step')
    cfg = small_config('pose', data, tmp_path,
                       **{'model.data_preprocessor.std': [0., 0., 0.]})
    code, lines = dry_run(cfg)
    assert code == 1 and state_of(lines, 'step') == ['FAIL']
    assert any('nan' in line for line in lines)


def test_a_broken_image_is_found(data, tmp_path, only):
    only('config', 'data')
    write_images(tmp_path / 'cls', 'folders')
    broken = sorted(tmp_path.glob('cls/train/*/*.*'))[0]
    broken.write_bytes(b'none')
    code, lines = dry_run(small_config('cls', tmp_path, tmp_path / 'work'))
    assert code == 1
    assert any(broken.name in line for line in lines if 'FAIL' in line)


def test_too_little_memory_and_disk_are_found(data, tmp_path, monkeypatch,
                                              only):
    only('config', 'machine', 'data', 'step', 'memory', 'disk')
    monkeypatch.setattr(steps, 'free_memory', lambda: 10**6)
    monkeypatch.setattr(steps.shutil, 'disk_usage', lambda path: Config(
        dict(free=10**5)))
    code, lines = dry_run(small_config('pose', data, tmp_path))
    assert code == 1
    assert state_of(lines, 'memory') == state_of(lines, 'disk') == ['FAIL']


def test_only_the_first_process_runs_the_checks(monkeypatch):
    monkeypatch.setenv('SLURM_PROCID', '3')
    monkeypatch.setenv('SLURM_NTASKS', '8')
    assert preflight.place('slurm') == (3, 8)
    assert preflight.place('none') == (0, 1)
    assert preflight.preflight(Config(dict(launcher='slurm'))) == 0


# Weights


def checkpoint(model, path, **changes):
    state = dict(model.state_dict(), **changes)
    torch.save(dict(state_dict=state), path)
    return str(path)


def weights(cfg, folder):
    """Findings about the weights of a config."""
    flight = preflight.Flight(cfg, 1, str(folder))
    init_default_scope(cfg.default_scope)
    assert next(inputs.check_config(flight)).state == 'ok'
    return flight, lambda: list(inputs.check_weights(flight))


def test_matched_and_unmatched_weights_are_reported(data, tmp_path):
    flight, look = weights(small_config('pose', data, tmp_path), tmp_path)
    model = flight.model
    total = len([k for k in model.state_dict() if 'num_batches' not in k])
    assert look()[0].found == 'none: training starts from scratch'
    flight.cfg.load_from = checkpoint(model, tmp_path / 'own.pth')
    found, = look()
    assert found.state == 'ok' and f'{total} of {total} tensors' in found.found
    flight.cfg.load_from = checkpoint(
        model, tmp_path / 'head.pth',
        **{'head.final_layer.weight': torch.zeros(3, 8, 1, 1)})
    found, = look()
    assert found.state == 'warn'
    assert '1 newly initialized (head.final_layer.weight)' in found.found
    flight.cfg.load_from = None
    model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'head.pth'))
    found, = look()
    assert found.state == 'ok' and '2 dropped' in found.found  # the head's
    assert f"{len(model.backbone.state_dict())} tensors matched" in found.found
    model.backbone.init_cfg = None
    (tmp_path / 'own.pth').write_bytes(
        (tmp_path / 'own.pth').read_bytes()[:5000])
    flight.cfg.load_from = str(tmp_path / 'own.pth')
    assert look()[0].state == 'FAIL'
    flight.cfg.load_from = str(tmp_path / 'gone.pth')
    assert look()[0].state == 'FAIL' and 'gone.pth' in look()[0].found


@pytest.mark.parametrize('names, state, words', [
    (['weight', 'bias'], 'ok', '2 of 2 tensors matched, 0 of the file'),
    (['weight', 'x'], 'warn',
     '1 of the file ignored (x), 1 newly initialized (bias'),
    (['x', 'y'], 'FAIL', '0 of 2 tensors matched, 2 of the file ignored'),
])
def test_weights_of_another_backbone_are_counted(names, state, words,
                                                 tmp_path):
    path = tmp_path / 'x.pth'
    shapes = dict(weight=(2, 2), bias=(2, ))
    torch.save({n: torch.zeros(shapes.get(n, 1)) for n in names}, path)
    flight = preflight.Flight(Config(), 1, str(tmp_path), nn.Linear(2, 2))
    flight.model.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    found, = inputs.check_weights(flight)
    assert found.state == state and words in found.found


# Estimates


def test_peak_memory_includes_tensors_saved_by_autograd():
    model = nn.Sequential(*[nn.Linear(64, 64, bias=False)] * 4)
    x = torch.rand(100, 64)
    with costs.PeakMemory() as memory:
        y = model(x)
        assert memory.now == 4 * 100 * 64 * 4  # all four results
        y.sum().backward()
        del y
    assert memory.now == costs.gradient_bytes(model) == 64 * 64 * 4
    assert memory.peak > 4 * 100 * 64 * 4


@pytest.mark.parametrize('with_cp', [False, True])
def test_memory_of_a_batch_is_extrapolated_from_a_smaller_one(with_cp):
    model = HRFormer(TINY, with_cp=with_cp)

    def peak(batch):
        with costs.PeakMemory() as memory:
            sum(y.sum() for y in model(torch.rand(batch, 3, 64, 64))
                ).backward()
        model.zero_grad()
        return memory.peak

    peak(1)  # what is made once
    two, three, eight = map(peak, (2, 3, 8))
    assert eight == pytest.approx(two + 6 * (three - two), rel=0.02)
    assert eight == pytest.approx(4 * two, rel=0.1)


def test_checkpointed_blocks_take_less_memory():
    peaks = []
    for with_cp in (True, False):
        model = HRFormer(TINY, with_cp=with_cp)
        with costs.PeakMemory() as memory:
            sum(y.sum() for y in model(torch.rand(2, 3, 64, 64))).backward()
        peaks.append(memory.peak)
    assert peaks[0] < 0.8 * peaks[1]


def test_the_size_of_checkpoints_is_that_of_the_file(tmp_path):
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW'))))
    model = HRFormer('tiny')
    optimizer = torch.optim.AdamW(model.parameters())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.save(dict(state_dict=model.state_dict(),
                    optimizer=optimizer.state_dict()), tmp_path / 'x.pth')
    measured = (tmp_path / 'x.pth').stat().st_size
    assert costs.checkpoint_bytes(model, cfg) == pytest.approx(
        measured, rel=0.05)


@pytest.mark.parametrize('hook, count', [
    (dict(interval=10, max_keep_ckpts=3, save_best='coco/AP'), 5),
    (dict(interval=10), 21),
    (dict(interval=100, max_keep_ckpts=5, save_best=['a', 'b']), 5),
    (dict(interval=-1), 0),
])
def test_checkpoints_on_disk_are_counted(hook, count):
    cfg = Config(dict(train_cfg=dict(max_epochs=210),
                      default_hooks=dict(checkpoint=hook)))
    assert costs.count_checkpoints(cfg) == count


def test_iterations_are_those_of_the_recipes():
    cfg = Config.fromfile(CONFIGS / 'cls/hrformer_t_imagenet_224.py')
    assert costs.count_iterations(cfg, 1_281_167, 8) == (300 * 1251, 1251)
    assert costs.count_evaluations(cfg) == 300
    cfg = Config.fromfile(CONFIGS / 'pose/hrformer_b_coco_384x288.py')
    assert costs.count_iterations(cfg, 149_813, 8) == (210 * 1171, 1171)
    assert costs.count_evaluations(cfg) == 21
    cfg = Config.fromfile(CONFIGS / 'seg/hrformer_b_cityscapes_512x1024.py')
    assert costs.count_iterations(cfg, 2975, 8)[0] == 80_000


def test_steps_are_measured_with_few_samples_and_with_many(data, tmp_path):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # another test may have it
    cfg = small_config('pose', data, tmp_path,
                       **{'train_dataloader.batch_size': 16})
    with DefaultScope.overwrite_default_scope('mmpose'):
        rehearsal = preflight.Rehearsal(cfg, str(tmp_path))
        measured = rehearsal.train()
        assert len(measured.losses) == measured.samples == 2
        assert 0 < measured.states < measured.peak == measured.memory(2)
        assert measured.memory(8) == pytest.approx(rehearsal.weigh(8), rel=.03)
        assert rehearsal.time(5) > 0
        # SIGTERM ends a dry run at once.
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# The launcher

STUB = '''#!/bin/bash
echo "$WORLD_SIZE $*" >> {calls}
case "$*" in *--dry-run*) exit {code} ;; esac
'''


def launch(folder, code, *args, **env):
    """Commands that dist_train.sh runs, where a dry run ends with a code."""
    stub, calls = folder / 'python', folder / 'calls'
    stub.write_text(STUB.format(calls=calls, code=code))
    stub.chmod(0o755)
    calls.write_text('')
    done = subprocess.run(
        ['bash', str(ROOT / 'tools/dist_train.sh'), 'row.py', '4', *args],
        env=dict(os.environ, PYTHON=str(stub), PORT='1', NNODES='2',
                 WORLD_SIZE='', **env))
    return done.returncode, calls.read_text().splitlines()


def test_training_on_several_processes_begins_with_a_quick_dry_run(tmp_path):
    code, (first, second) = launch(tmp_path, 0, '--amp')
    tool = Path('tools/train.py')
    assert code == 0 and first.startswith('8 ')  # 2 machines of 4
    assert first.endswith(f'{tool} row.py --amp --quick --dry-run')
    assert 'hrformer_mm.engine.launch' in second and '--dry-run' not in second
    code, calls = launch(tmp_path, 1)
    assert code == 1 and len(calls) == 1


def test_the_dry_run_can_be_whole_skipped_or_run_alone(tmp_path):
    code, (first, _) = launch(tmp_path, 0, PREFLIGHT='full')
    assert code == 0 and '--dry-run' in first and '--quick' not in first
    code, calls = launch(tmp_path, 1, PREFLIGHT='0')
    assert code == 0 and len(calls) == 1 and '--dry-run' not in calls[0]
    code, calls = launch(tmp_path, 0, '--dry-run')
    assert code == 0 and len(calls) == 1 and '--quick' not in calls[0]


# The checks themselves


def test_an_error_of_a_check_is_a_finding_after_those_before_it():

    @preflight.report.findings_about('subject', needs='samples')
    def broken(flight):
        yield preflight.OK, 'first'
        raise ZeroDivisionError('second')

    flight = preflight.Flight(Config(), 1, '')
    skipped, = broken(flight)
    assert skipped.state == 'skip' and 'valid config and data' in str(skipped)
    flight.sizes['train_dataloader'] = 1
    first, second = broken(flight)
    assert (first.what, first.state) == ('subject', 'ok')
    assert (second.what, second.state) == ('subject', 'FAIL')
    assert second.found == 'ZeroDivisionError: second'
    assert 'HRFORMER_MM_TRACEBACK' in second.fix
