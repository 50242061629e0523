# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Configs for small real datasets, on noise in the layout of each."""
import numpy as np
import pytest
from helpers import CONFIGS, SMALL, last_scalars, run_training, tiny_config
from small_data import WRITERS

METRICS = dict(lspet='val/tPCK', openfield='val/EPE', fly='val/EPE',
               camvid='val/mIoU')  # yapf: disable
FILES = {
    path.stem: (dataset, f'{path.parent.name}/{path.name}')
    for dataset in WRITERS
    for path in sorted(CONFIGS.glob(f'*/*_{dataset}_*.py'))
}
ARCH = {'model.backbone.arch': dict(SMALL, _delete_=True)}
SMALL_MODELS = dict(
    pose={**ARCH, 'model.head.in_channels': 8},
    seg={**ARCH, 'model.decode_head.in_channels': (8, 16, 32, 64),
         'model.decode_head.channels': 16,
         'model.decode_head.ocr_channels': 8})  # yapf: disable


@pytest.mark.parametrize('name, is_small', [
    *((name, True) for name in FILES
      if name.startswith('hrformer_t') and name.count('_') == 3),
    *(pytest.param(name, False, marks=pytest.mark.slow) for name in FILES)])
def test_config_trains_and_evaluates(name, is_small, tmp_path):
    dataset, path = FILES[name]
    pytest.importorskip('mmseg' if dataset == 'camvid' else 'mmpose')
    WRITERS[dataset](tmp_path / dataset)
    options = dict() if dataset == 'camvid' else {
        'model.test_cfg.flip_test': False
    }
    if is_small:
        options.update(SMALL_MODELS[path.split('/')[0]])
    cfg = tiny_config(path, tmp_path / 'work', tmp_path / dataset, **options)
    found = last_scalars(run_training(cfg))
    assert np.isfinite(found['train/loss'])
    assert np.isfinite(found[METRICS[dataset]])


def sample(truth, found, visible=None):
    visible = np.ones((1, len(truth))) if visible is None else visible
    return dict(
        pred_instances=dict(keypoints=np.array([found], float)),
        gt_instances=dict(
            keypoints=np.array([truth], float),
            keypoints_visible=visible,
            bboxes=np.array([[0., 0., 100., 50.]])))


def test_pck_is_relative_to_the_torso_and_to_the_box():
    pytest.importorskip('mmpose')
    from hrformer_mm.datasets.metrics import TorsoPCK
    truth = [(10, 10), (10, 50), (90, 40)]  # a torso of 40: 8 pixels pass
    metric = TorsoPCK(torso=(0, 1), thr=0.2)
    metric.process(None, [
        sample(truth, [(10, 17), (10, 59), (90, 40)]),
        # No torso: counts for the box of 100 alone.
        sample(truth, [(10, 10), (10, 50), (90, 61)], np.array([[0, 1, 1]]))
    ])
    found = metric.evaluate(2)
    # mean over keypoints of the share of instances
    assert found['tPCK'] == pytest.approx((1 + 0 + 1) / 3)
    assert found['PCK'] == pytest.approx((1 + 1 + .5) / 3)
