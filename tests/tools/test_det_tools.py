# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Dry runs, pictures of tests and interrupted trainings of detectors."""
import io
import os
import signal

import cv2
import pytest
import torch

pytest.importorskip('mmdet')
from det_data import SYNTHETIC, tiny_det, write_det  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from tool_runs import tool  # noqa: E402
from toy import CallAt  # noqa: E402

from hrformer_mm.engine import preflight  # noqa: E402

CallAt.functions['end'] = lambda runner: os.kill(os.getpid(), signal.SIGTERM)
IMAGES = 8


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_det(tmp_path_factory.mktemp('det_tools') / 'data', IMAGES)


def train(folder, data, config=SYNTHETIC, **options):
    """Train for two epochs of four batches, without evaluations."""
    cfg = tiny_det(config, folder, data, **{
        'train_dataloader.dataset.indices': None, 'train_cfg.max_epochs': 2,
        'default_hooks.checkpoint.save_best': None,
        'model.backbone.drop_path_rate': .2, 'resume': True,
        'randomness': dict(seed=0, deterministic=True), **options})
    cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.model.state_dict()


@pytest.mark.slow
def test_a_dry_run_of_a_detector_is_ready(data, tmp_path):
    stream = io.StringIO()
    cfg = tiny_det(SYNTHETIC, tmp_path / 'work', data)
    code = preflight.preflight(cfg, stream)
    lines = stream.getvalue().splitlines()
    assert code == 0, lines
    assert lines[-1].startswith('ready to train: 0 errors, ')
    assert not [x for x in lines if x.split()[0] in ('FAIL', 'skip')], lines
    assert not (tmp_path / 'work').exists()


def test_a_test_draws_objects_into_the_folder_of_show_dir(data, tmp_path):
    cfg = tiny_det(SYNTHETIC, tmp_path / 'run', data)
    cfg.test_dataloader.dataset.indices = 2
    cfg.dump(tmp_path / 'config.py')
    runner = Runner.from_cfg(cfg)
    torch.save(dict(state_dict=runner.model.state_dict()),
               tmp_path / 'weights.pth')
    tool('test')([str(tmp_path / 'config.py'), str(tmp_path / 'weights.pth'),
                  '--work-dir', str(tmp_path / 'work'), '--show-dir',
                  str(tmp_path / 'shown'), '--interval', '1'])
    pictures = sorted((tmp_path / 'shown').rglob('*.*'))
    pictures = [p for p in pictures if p.suffix in ('.jpg', '.png')]
    assert len(pictures) == 2
    sizes = {cv2.imread(str(p)).shape for p in (data / 'val2017').iterdir()}
    for path in pictures:  # labels beside predictions
        height, width, _ = cv2.imread(str(path)).shape
        assert (height, width // 2, 3) in sizes


@pytest.mark.slow
@pytest.mark.parametrize('config', [
    SYNTHETIC, 'det/hrformer_s_coco_800x1333_retinanet.py'])
def test_an_interrupted_training_of_a_detector_ends_with_the_same_bits(
        config, data, tmp_path):
    expected = train(tmp_path / 'whole', data, config)
    for stop in (1, 5):  # in the first and in the second epoch
        with pytest.raises(SystemExit) as error:
            train(tmp_path / 'stopped', data, config, custom_hooks=[
                dict(type='CallAt', name='end', at=stop)])
        assert error.value.code == 143
        last = (tmp_path / 'stopped/last_checkpoint').read_text()
        assert torch.load(last)['meta']['iter'] == stop + 1
    found = train(tmp_path / 'stopped', data, config)
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
