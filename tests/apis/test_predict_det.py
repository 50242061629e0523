# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""hrformer-mm predict with detectors: boxes and masks as COCO's results."""
import json

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
import predicting  # noqa: E402
from det_data import SYNTHETIC, tiny_det, write_det  # noqa: E402
from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from pycocotools import mask  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402

from hrformer_mm.__main__ import main  # noqa: E402
from hrformer_mm.apis.det import category_ids  # noqa: E402


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """Data, config and random weights of a tiny Mask R-CNN."""
    folder = tmp_path_factory.mktemp('predict_det')
    data = write_det(folder / 'data', 2)
    cfg = tiny_det(SYNTHETIC, folder / 'run', data, **{
        'model.test_cfg.rcnn.score_thr': 0.})  # yapf: disable
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(cfg.model)
    torch.save(dict(state_dict=built.state_dict()), folder / 'weights.pth')
    cfg.dump(folder / 'config.py')
    return folder


def test_boxes_and_masks_are_written_in_coco_format(model, tmp_path):
    assert main([
        'predict', str(model / 'config.py'), str(model / 'weights.pth'),
        str(model / 'data/val2017'), '--out-dir', str(tmp_path),
        '--box-thr', '0', '--device', 'cpu'
    ]) == 0
    truth = COCO(str(tmp_path / 'images.json'))
    found = json.loads((tmp_path / 'predictions.json').read_text())
    assert [c['name'] for c in truth.dataset['categories']] == ['person']
    assert {f['image_id'] for f in found} <= {*truth.getImgIds()} == {1, 2}
    assert 0 < len(found) <= 40
    for one in found:
        image = truth.imgs[one['image_id']]
        x, y, w, h = one['bbox']
        assert 0 <= x <= x + w <= image['width'] + .01
        assert 0 <= y <= y + h <= image['height'] + .01
        assert mask.decode(one['segmentation']).shape == (
            image['height'], image['width'])
    truth.loadRes(str(tmp_path / 'predictions.json'))
    name = truth.imgs[found[0]['image_id']]['file_name'].rpartition('/')[2]
    drawn = cv2.imread(str(tmp_path / 'overlays' / name))
    source = cv2.imread(str(model / 'data/val2017' / name))
    assert drawn.shape == source.shape
    assert (np.abs(drawn.astype(int) - source) > 50).mean() > .001


def test_options_of_pose_are_refused(model, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([
            'predict', str(model / 'config.py'), str(model / 'weights.pth'),
            str(model / 'data/val2017'), '--out-dir', str(tmp_path),
            '--boxes', 'whole'
        ])
    assert '--boxes' in capsys.readouterr().err


def test_categories_have_the_ids_of_coco_where_their_names_are_cocos():
    assert category_ids(['person', 'toothbrush']) == [1, 90]
    assert category_ids(['person', 'unicorn']) == [1, 2]


def test_pose_takes_the_boxes_of_a_config_and_its_weights(model, tmp_path):
    config, weights = predicting.write_config('pose', tmp_path)
    assert main([
        'predict', config, weights, '--out-dir', str(tmp_path / 'out'),
        '--device', 'cpu', '--box-thr', '0.01', '--no-overlay', '--detector',
        str(model / 'config.py'), str(model / 'weights.pth'),
        str(model / 'data/val2017')
    ]) == 0
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert found and all(len(one['keypoints']) == 51 for one in found)
    assert {one['category_id'] for one in found} == {1}


def test_the_detector_must_be_of_mmdetection(model, tmp_path,
                                              capsys):
    config, weights = predicting.write_config('pose', tmp_path)
    with pytest.raises(SystemExit):
        main(['predict', config, weights, str(model / 'data/val2017'),
              '--detector', config, weights])
    assert 'no config of MMDetection' in capsys.readouterr().err
