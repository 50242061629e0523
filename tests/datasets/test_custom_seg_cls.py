# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Custom labels and images: templates, sizes and contact sheets."""
import cv2
import numpy as np
import pytest
from helpers import CONFIGS, last_scalars, run_training, tiny_config
from image_folders import write_labels
from mmengine.config import Config

from hrformer_mm.datasets.validation.common import (
    check_datasets,
    describe_summary,
)
from hrformer_mm.datasets.validation.contact_sheet import contact_sheet
from hrformer_mm.engine.train import set_data_root

TEMPLATE = CONFIGS / 'seg/custom_labels.py'
ARCH = dict(_delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
            modules=(1, 1, 1), blocks=1)  # yapf: disable
TINY = {
    'model.backbone.arch': ARCH,
    'model.decode_head.in_channels': (8, 16, 32, 64),
    'model.decode_head.channels': 16,
    'model.decode_head.ocr_channels': 8,
    'model.data_preprocessor.size': (64, 64),
    'train_dataloader.dataset.pipeline.3.scale': (1000, 64),
    'train_dataloader.dataset.pipeline.5.crop_size': (64, 64),
    'val_dataloader.dataset.pipeline.1.scale': (1000, 64),
    'default_hooks.checkpoint': None,
}


def config(root):
    cfg = Config.fromfile(TEMPLATE)
    set_data_root(cfg, str(root))
    return cfg


CLASSES = ('background', 'cell', 'wall', 'dust')
# What a copy of the template may say.
COPIES = {
    'two classes': {},
    'one logit': {
        'model.decode_head.out_channels': 1,
        'model.decode_head.threshold': 0.5,
    },
    'four classes': {
        'model.decode_head.num_classes': 4,
        **{f'{part}_dataloader.dataset.metainfo': dict(
            _delete_=True, classes=CLASSES) for part in ('train', 'val')}
    },
}  # yapf: disable


@pytest.mark.parametrize('copy', COPIES)
def test_label_template_trains_and_evaluates(copy, tmp_path):
    pytest.importorskip('mmseg', reason='the template is of MMSegmentation')
    values = (1, 2, 3) if copy == 'four classes' else (1, )
    root = write_labels(tmp_path / 'labels', values)
    cfg = tiny_config(TEMPLATE, tmp_path / 'work', root, **TINY,
                      **COPIES[copy])
    runner = run_training(cfg)
    scalars = last_scalars(runner)
    assert runner.iter == 2
    assert np.isfinite(scalars['train/loss'])
    assert 0 <= scalars['val/mIoU'] <= 100


@pytest.fixture
def root(tmp_path):
    return write_labels(tmp_path / 'labels', (1, ))


def test_binary_labels_with_ignored_pixels_are_valid(root):
    summary = check_datasets(config(root))['train_dataloader']
    assert summary.problems == []
    total = sum(summary.classes.values())
    assert total == 4 * 70 * 85  # all but the ignored
    assert summary.classes['object'] / total == pytest.approx(.21, abs=.03)
    assert 'images of 100 x 70 (width x height)' in describe_summary(summary)


def test_masks_of_0_and_255_are_reported_with_the_fix(root):
    for path in (root / 'labels/train').iterdir():
        label = cv2.imread(str(path), 0)
        cv2.imwrite(str(path), np.where(label > 0, 255, 0).astype('u1'))
    summary = check_datasets(config(root))['train_dataloader']
    assert summary.absent == ['object']


def test_contact_sheet_colors_classes_and_darkens_ignored_pixels(root):
    sheet = contact_sheet(config(root), 'train_dataloader')
    tile = sheet[36:276, 6:349]  # the first, 240 high
    object_, background, ignored = (
        tile[80, x].astype(int) for x in (171, 80, 20))
    assert object_[2] > object_[0] + 60  # orange, mixed with grey
    assert object_.sum() > 300  # the image shows through
    assert object_.sum() > background.sum() > ignored.sum()


def test_contact_sheet_shows_class_names_and_skips_broken_images(tmp_path):
    for part in ('train', 'val'):
        for name in ('ant', 'bee'):
            (tmp_path / part / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / part / name / '0.png'),
                        np.full((80, 80, 3), 200, 'u1'))
    cfg = Config.fromfile(CONFIGS / 'cls/custom_folder.py')
    set_data_root(cfg, str(tmp_path))
    full = contact_sheet(cfg, 'train_dataloader')
    (tmp_path / 'train/ant/0.png').write_text('broken')
    less = contact_sheet(cfg, 'train_dataloader')
    (tmp_path / 'train/bee/0.png').write_text('broken')
    assert contact_sheet(cfg, 'train_dataloader') is None

    def grey(sheet):
        return (sheet == 200).all(2).sum()

    assert grey(full) == pytest.approx(2 * grey(less), rel=.1)
