# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""mim runs our configs with MMPose's scripts and with ours."""
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers import ROOT, tiny_config, write_tiny_coco
from tiny_tasks import task_config

from hrformer_mm.utils.check_env import run_probe

pytest.importorskip('mmpose')
MIM = Path(sys.executable).with_name('mim')
pytestmark = pytest.mark.slow
TINY = {
    'model.backbone.arch':
    dict(_delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
         modules=(1, 1, 1), blocks=1),
    'model.head.in_channels': 8,
}  # yapf: disable


@pytest.fixture(scope='module', autouse=True)
def skip_without_mim():
    if not MIM.exists() or not run_probe('mim_runs', fixed=False)[0]:
        pytest.skip('there is no mim that works; see check_env')
    if not (ROOT / 'hrformer_mm/.mim').exists():
        pytest.skip('hrformer_mm is not installed')


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    """Write a small pose config: two iterations an epoch, 500 epochs."""
    folder = tmp_path_factory.mktemp('mim')
    cfg = tiny_config('pose/hrformer_t_coco_256x192.py', folder / 'unused',
                      write_tiny_coco(folder / 'coco'), **TINY)
    cfg.train_cfg.update(max_epochs=500, val_interval=500)
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=-1)
    cfg.dump(folder / 'own_row.py')
    return folder / 'own_row.py'


def mim(*args, **options) -> subprocess.Popen:
    return subprocess.Popen([str(a) for a in (MIM, *args)],
                            stdin=subprocess.DEVNULL,
                            cwd=ROOT,
                            **options)


def train(package: str, config: Path, work_dir: Path, *args, **options):
    return mim('train', package, config, '--work-dir', work_dir, *args,
               **options)


def logged(work_dir: Path):
    """Each run's logged scalars, by the time of its start."""
    return [[json.loads(line) for line in log.read_text().splitlines()]
            for log in sorted(work_dir.glob('*/vis_data/scalars.json'))]


def learning_rate(iteration: int) -> float:
    """Of a step, counted from 1, of the recipe's warm-up."""
    return 5e-4 * (.001 + .999 * (iteration - 1) / 500)


def kill_after(process: subprocess.Popen, file: Path, seconds: int = 300):
    """Kill a process and its children with -9 once a file is there."""
    end = time.monotonic() + seconds
    try:
        while not file.exists():
            assert process.poll() is None, 'it ended before it was killed'
            assert time.monotonic() < end, f'no {file.name} in {seconds} s'
            time.sleep(.1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_mmpose_trains_evaluates_and_resumes_after_kill_9(config, tmp_path):
    process = train('mmpose', config, tmp_path, start_new_session=True)
    kill_after(process, tmp_path / 'epoch_2.pth')
    last = (tmp_path / 'last_checkpoint').read_text()
    saved = torch.load(last)['meta']
    assert saved['iter'] == 2 * saved['epoch'] >= 4
    epochs = saved['epoch'] + 2

    process = train('mmpose', config, tmp_path, '--cfg-options',
                    f'train_cfg.max_epochs={epochs}', '--resume')
    assert process.wait() == 0
    before, after = logged(tmp_path)
    steps = [(x['iter'], x['lr']) for x in after if 'lr' in x]
    assert [i for i, _ in steps] == [saved['iter'] + k for k in (1, 2, 3, 4)]
    for iteration, rate in steps + [(x['iter'], x['lr']) for x in before]:
        assert rate == pytest.approx(learning_rate(iteration))
    assert 'coco/AP' in after[-1]
    assert torch.load(tmp_path / f'epoch_{epochs}.pth')['meta']['iter'] == (
        2 * epochs)


def test_mmpose_trains_an_unchanged_config_without_gpu(tmp_path):
    """The command of configs/pose/README.md, with nothing but its data."""
    root = write_tiny_coco(tmp_path / 'coco')
    boxes = (root / 'person_detection_results'
             / 'COCO_val2017_detections_AP_H_56_person.json')
    process = mim(
        'train', 'mmpose', 'configs/pose/hrformer_t_coco_256x192.py',
        '--gpus', '0', '--work-dir', tmp_path / 'run', '--cfg-options',
        f'train_dataloader.dataset.data_root={root}',
        f'val_dataloader.dataset.data_root={root}',
        f'val_dataloader.dataset.bbox_file={boxes}',
        'train_cfg.max_epochs=1', 'model.backbone.init_cfg=None',
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=dict(os.environ, CUDA_VISIBLE_DEVICES='-1'))  # yapf: disable
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert text.count('no GPU found: full instead of mixed precision') == 1
    assert 'paramwise_options' not in text
    (run, ) = logged(tmp_path / 'run')
    assert [x['iter'] for x in run if 'lr' in x] == [1]
    assert 'coco/AP' in run[-1] and (tmp_path / 'run/epoch_1.pth').exists()


@pytest.mark.parametrize('task, package', [
    ('pose', 'mmpose'), ('seg', 'mmseg'), ('cls', 'mmpretrain')])
def test_train_py_of_each_framework_trains_without_gpu(task, package,
                                                       tmp_path):
    pytest.importorskip(package)
    script = Path(find_spec(package).origin).with_name('.mim')
    cfg = task_config(task, tmp_path, samples=2, passes=1)
    cfg.optim_wrapper.type = 'hrformer_mm.AmpOptimWrapper'
    cfg.dump(tmp_path / 'own.py')
    done = subprocess.run(
        [sys.executable, str(script / 'tools/train.py'), 'own.py'],
        cwd=tmp_path, capture_output=True, text=True,
        env=dict(os.environ, CUDA_VISIBLE_DEVICES='-1'))  # yapf: disable
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert text.count('no GPU found: full instead of mixed precision') == 1
    assert 'paramwise_options' not in text
    (run, ) = logged(tmp_path / 'run')
    assert [x['step'] for x in run if 'lr' in x] == [1]


@pytest.mark.parametrize('task, package', [
    ('pose', 'mmpose'), ('seg', 'mmseg'), ('cls', 'mmpretrain')])
def test_two_processes_of_each_framework_train_without_gpu(task, package,
                                                           tmp_path):
    """A config that asks for nccl and for mixed precision, as ours do."""
    pytest.importorskip(package)
    script = Path(find_spec(package).origin).with_name('.mim')
    cfg = task_config(task, tmp_path, samples=4, passes=1)
    cfg.env_cfg.dist_cfg.backend = 'nccl'
    assert cfg.sync_bn == 'torch'
    cfg.optim_wrapper.type = 'hrformer_mm.AmpOptimWrapper'
    cfg.dump(tmp_path / 'own.py')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone',
               '--nproc_per_node=2', str(script / 'tools/train.py'), 'own.py',
               '--launcher', 'pytorch']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True,
                          text=True,
                          env=dict(os.environ, CUDA_VISIBLE_DEVICES='-1'))
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert text.count('no GPU found: gloo instead of nccl') == 1
    (run, ) = logged(tmp_path / 'run')
    assert [x['step'] for x in run if 'lr' in x]
    metric = dict(pose='coco/AP', seg='mIoU', cls='accuracy/top1')[task]
    assert metric in run[-1]
    assert (tmp_path / 'run/last_checkpoint').exists()


def test_the_package_trains_by_its_own_script(config, tmp_path):
    process = train('hrformer_mm', config, tmp_path, '--cfg-options',
                    'train_cfg.max_epochs=1')
    assert process.wait() == 0
    (run, ) = logged(tmp_path)
    assert [x['iter'] for x in run if 'lr' in x] == [1, 2]
    assert 'coco/AP' in run[-1]


def test_mim_finds_our_configs():
    out, _ = mim(
        'search',
        'hrformer_mm',
        '--model',
        'hrformer',
        stdout=subprocess.PIPE,
        text=True).communicate()
    assert 'hrformer_b_coco_384x288' in out
