# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Configs for small real datasets, on noise in the layout of each."""
import json

import cv2
import numpy as np
import pytest
from helpers import CONFIGS, last_scalars, run_row, tiny_row

HW = (96, 128)


def write_keypoints(root, keypoints, prefix, suffix, ext):
    """Write 4 images of one animal or person each for train and val."""
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for part in ('train', 'val'):
        folder = root / 'images' / part
        folder.mkdir(parents=True)
        images, anns = [], []
        for i in range(1, 5):
            name = f'{part}{i}{ext}'
            cv2.imwrite(
                str(folder / name), rng.integers(0, 255, (*HW, 3), 'u1'))
            images.append(
                dict(id=i, file_name=name, height=HW[0], width=HW[1]))
            points = rng.random((keypoints, 3)) * (HW[1], HW[0], 0) + (0, 0, 2)
            anns.append(
                dict(
                    id=i,
                    image_id=i,
                    category_id=1,
                    iscrowd=0,
                    bbox=[0, 0, HW[1], HW[0]],
                    area=HW[0] * HW[1],
                    num_keypoints=keypoints,
                    keypoints=points.round(1).flatten().tolist()))
        content = dict(
            images=images,
            annotations=anns,
            categories=[dict(id=1, name='animal')])
        (root / f'annotations/{prefix}_{part}{suffix}.json').write_text(
            json.dumps(content))


def write_camvid(root):
    """Write 4 images and labels of 11 classes for each of three parts."""
    rng = np.random.default_rng(0)
    for part in ('train', 'val', 'test'):
        for kind in ('images', 'labels'):
            (root / kind / part).mkdir(parents=True)
        for i in range(4):
            label = rng.integers(0, 11, HW, 'u1')
            label[:8] = 255
            cv2.imwrite(
                str(root / f'images/{part}/{i}.jpg'),
                rng.integers(0, 255, (*HW, 3), 'u1'))
            cv2.imwrite(str(root / f'labels/{part}/{i}.png'), label)


WRITERS = dict(
    lspet=lambda root: write_keypoints(root, 14, 'person_keypoints', '',
                                       '.jpg'),
    openfield=lambda root: write_keypoints(root, 4, 'keypoints', '_wholeimage',
                                           '.jpg'),
    fly=lambda root: write_keypoints(root, 32, 'keypoints', '_wholeimage',
                                     '.png'),
    camvid=write_camvid)
METRICS = dict(lspet='val/tPCK', openfield='val/EPE', fly='val/EPE',
               camvid='val/mIoU')  # yapf: disable
FILES = {
    path.stem: (dataset, f'{path.parent.name}/{path.name}')
    for dataset in WRITERS
    for path in sorted(CONFIGS.glob(f'*/*_{dataset}_*.py'))
}
CASES = [
    name if name.startswith('hrformer_t') and name.count('_') == 3 else
    pytest.param(name, marks=pytest.mark.slow) for name in FILES
]


@pytest.mark.parametrize('name', CASES)
def test_config_trains_and_evaluates(name, tmp_path):
    dataset, path = FILES[name]
    pytest.importorskip('mmseg' if dataset == 'camvid' else 'mmpose')
    WRITERS[dataset](tmp_path / dataset)
    options = dict() if dataset == 'camvid' else {
        'model.test_cfg.flip_test': False
    }
    cfg = tiny_row(path, tmp_path / 'work', tmp_path / dataset, **options)
    found = last_scalars(run_row(cfg))
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
