# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Faults of boxes, masks and categories in COCO's format are reported."""
import json

import pytest

pytest.importorskip('mmdet')
from det_data import SYNTHETIC, tiny_det, write_det  # noqa: E402

from hrformer_mm.datasets.browse import browse  # noqa: E402
from hrformer_mm.datasets.validation.common import check_datasets  # noqa: E402
from hrformer_mm.datasets.validation.contact_sheet import (  # noqa: E402
    contact_sheet,
)

TRAIN = 'annotations/person_keypoints_train2017.json'


@pytest.fixture
def data(tmp_path):
    return write_det(tmp_path / 'data', 3)


def report(data, change, **options) -> list:
    """Problems of the training data after a change of its file."""
    path = data / TRAIN
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    cfg = tiny_det(SYNTHETIC, data / 'run', data, **options)
    return [str(p) for p in check_datasets(cfg)['train_dataloader'].problems]


def set_first(**values):
    return lambda content: content['annotations'][0].update(values)


def test_good_data_has_counts_and_no_problems(data):
    found = check_datasets(tiny_det(SYNTHETIC, data / 'run', data))
    assert [*found] == ['train_dataloader', 'val_dataloader']
    for summary in found.values():
        assert summary.problems == [] and not summary.skipped
        assert summary.counts['images'] == 3
        assert summary.classes['person'] == summary.counts['instances'] >= 3
        assert len(summary.sizes) == 3


@pytest.mark.parametrize('change, words', [
    (set_first(bbox=[1, 2, 3]), 'must be x, y, width, height'),
    (set_first(bbox=[1, 2, 0, 3]), 'without area'),
    (set_first(bbox=[1, 2, 900, 3]), 'outside its image'),
    (set_first(segmentation=[]), 'has no mask'),
    (set_first(segmentation=[[1, 2, 3, 4]]), 'at least three points'),
    (set_first(segmentation=dict(size=[2, 2])), 'without counts'),
    (set_first(image_id=99), 'image 99'),
    (set_first(category_id='person'), 'a text'),
    (lambda c: c['annotations'][0].pop('area'), 'lacks area'),
    (lambda c: c['categories'][0].update(name='man'), "['person']"),
    (lambda c: c['images'][0].update(file_name='no.jpg'), 'does not exist'),
    (lambda c: c.update(annotations=[]), 'no instance'),
], ids=['short box', 'flat box', 'outside', 'no mask', 'two points', 'no '
        'counts', 'unknown image', 'text', 'no area', 'other category',
        'no file', 'empty'])  # yapf: disable
def test_a_fault_is_reported_with_its_place(data, change, words):
    found = report(data, change)
    assert any(words in line for line in found), found


def test_heads_must_have_the_classes_of_the_data(data):
    found = report(data, lambda c: None, **{
        'model.roi_head.bbox_head.num_classes': 2})  # yapf: disable
    assert found == ['model.roi_head.bbox_head.num_classes is 2, but the '
                     'dataset has 1 classes']


def test_samples_are_drawn(data):
    cfg = tiny_det(SYNTHETIC, data / 'run', data)
    images = browse(cfg, number=2)
    assert len(images) == 2 and images[0].shape[0] == 400
    assert contact_sheet(cfg, 'train_dataloader').std() > 10
