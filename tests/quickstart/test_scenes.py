# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Drawn streets, and the quickstart that trains on them."""
import cv2
import numpy as np
import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from hrformer_mm.datasets.validation.common import check_datasets
from hrformer_mm.engine.train import set_data_root
from hrformer_mm.quickstart.seg import TASK, draw, paint
from hrformer_mm.quickstart.synthetic.scenes import (
    CLASSES,
    UNLABELLED,
    draw_scene,
    make_scenes,
)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    make_scenes(folder, 30, 3)
    return folder


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob('*')) if p.is_file()
    }


def test_equal_calls_write_equal_files(tmp_path):
    for name in 'ab':
        make_scenes(tmp_path / name, 2, 1, seed=3)
    assert contents(tmp_path / 'a') == contents(tmp_path / 'b')
    assert len(contents(tmp_path / 'a')) == 6


def test_other_seeds_and_splits_give_other_scenes(tmp_path):
    make_scenes(tmp_path, 1, 1, seed=0)
    make_scenes(tmp_path, 1, 1, seed=1)
    images = [v for k, v in contents(tmp_path).items() if 'leftImg8bit' in k]
    assert len(set(images)) == 4


def test_nothing_is_left_beside_the_scenes(root):
    names = contents(root)
    assert len(names) == 66
    assert all(
        n.endswith(('_leftImg8bit.png', '_gtFine_labelTrainIds.png'))
        for n in names)


def test_scenes_load_as_cityscapes(root):
    cfg = Config.fromfile(CONFIGS / 'seg' / TASK.config.split('/')[1])
    set_data_root(cfg, str(root))
    summaries = check_datasets(cfg)
    assert [s.counts['images'] for s in summaries.values()] == [30, 3]
    assert not any(s.problems for s in summaries.values())
    names = list(summaries['train_dataloader'].classes)
    present = [n for n, c in summaries['train_dataloader'].classes.items()
               if c]
    assert present == [names[c] for c in CLASSES]


@pytest.mark.parametrize('size', [(112, 224), (64, 96), (256, 512)])
def test_a_scene_has_the_size_asked_for(size):
    image, labels = draw_scene(np.random.default_rng(0), size)
    assert image.shape == (*size, 3) and labels.shape == size
    assert image.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*CLASSES, UNLABELLED}


def test_classes_have_their_colors_and_the_rest_is_black():
    picture = paint(np.array([[1, 255]], np.uint8), [[1, 2, 3], [4, 5, 6]])
    assert picture.tolist() == [[[6, 5, 4], [0, 0, 0]]]


def test_image_label_and_prediction_are_drawn_side_by_side(root, tmp_path):
    cfg = Config.fromfile(CONFIGS / 'seg' / TASK.config.split('/')[1])
    set_data_root(cfg, str(root))
    init_default_scope('mmseg')
    weights = tmp_path / 'weights.pth'
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    path, = draw(cfg, str(weights), tmp_path)
    picture = cv2.imread(str(path))
    assert picture.shape[1] == 1500 and picture.shape[0] > 300
    image = cv2.imread(str(next(root.glob('leftImg8bit/val/*/*.png'))))
    assert picture.mean() < 255 and image.shape == (112, 224, 3)
