# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Faults of boxes, masks and categories in COCO's format are reported."""
import json

import pytest

pytest.importorskip('mmdet')
from det_data import SYNTHETIC, tiny_det, write_det  # noqa: E402

from hrformer_mm.datasets.browse import browse  # noqa: E402
from hrformer_mm.datasets.validation.common import check_datasets  # noqa: E402
from hrformer_mm.datasets.validation.contact_sheet import contact_sheet  # noqa: E402

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
    (set_first(category_id=[1]), 'category_id [1]'),
    (lambda c: c['categories'][0].update(id=[1]), 'has the id [1]'),
    (lambda c: c.update(categories=3), 'has the categories 3'),
], ids=['short box', 'flat box', 'outside', 'no mask', 'two points', 'no '
        'counts', 'unknown image', 'text', 'no area', 'other category',
        'no file', 'empty', 'list of categories', 'list as id', 'categories '
        'of another type'])  # yapf: disable
def test_a_fault_is_reported_with_its_place(data, change, words):
    found = report(data, change)
    assert any(words in line for line in found), found


def test_heads_must_have_the_classes_of_the_data(data):
    found = report(data, lambda c: None, **{
        'model.roi_head.bbox_head.num_classes': 2})  # yapf: disable
    assert found == ['model.roi_head.bbox_head.num_classes is 2, but the '
                     'dataset has 1 classes']


def test_region_proposals_and_semantic_heads_have_classes_of_their_own(data):
    assert not report(data, lambda c: None, **{
        'model.roi_head.semantic_head': dict(num_classes=183),
        'model.rpn_head.num_classes': 2})  # yapf: disable


def test_files_without_objects_are_reported(data):
    (data / TRAIN).write_text('[]')
    found = check_datasets(tiny_det(SYNTHETIC, data / 'run', data))
    assert 'must be an object' in str(found['train_dataloader'].problems[0])


def test_reason_why_a_dataset_cannot_be_built_is_reported(data):
    found = report(data, lambda c: None, **{
        'train_dataloader.dataset.metainfo': 'classes.txt'})  # yapf: disable
    assert len(found) == 1 and 'metainfo should be a Mapping' in found[0]


def panoptic(root):
    """Write panoptic labels of one class, and return the dataset's fields."""
    content = json.loads((root / TRAIN).read_text())
    names = [image['file_name'] for image in content['images']]
    content['annotations'] = [
        dict(image_id=image['id'], file_name='x.png', segments_info=[
            dict(id=1, category_id=1, bbox=[1, 2, 9, 9], area=9, iscrowd=0)])
        for image in content['images']]  # yapf: disable
    content['categories'][0]['isthing'] = 1
    (root / 'panoptic.json').write_text(json.dumps(content))
    (root / 'labels').mkdir()
    return dict(
        type='CocoPanopticDataset', ann_file='panoptic.json', metainfo=dict(
            classes=('person', ), thing_classes=('person', ),
            stuff_classes=()), data_prefix=dict(
                img='train2017/', seg='labels/')), len(names)


def voc(root):
    """Write boxes as XML, and return the dataset's fields."""
    (root / 'Annotations').mkdir()
    (root / 'JPEGImages').symlink_to(root / 'train2017')
    names = sorted(p.stem for p in (root / 'train2017').iterdir())
    (root / 'list.txt').write_text('\n'.join(names))
    for name in names:
        (root / f'Annotations/{name}.xml').write_text(
            '<annotation><object><name>person</name><bndbox><xmin>1</xmin>'
            '<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>'
            '</annotation>')
    return dict(type='XMLDataset', ann_file='list.txt', metainfo=dict(
        classes=('person', )), data_prefix=dict(sub_data_root=''),
                img_subdir='JPEGImages', ann_subdir='Annotations'), len(names)


@pytest.mark.parametrize('write', [panoptic, voc])
def test_datasets_of_other_formats_are_checked_by_their_samples(data, write):
    fields, length = write(data)
    cfg = tiny_det(SYNTHETIC, data / 'run', data)
    cfg.train_dataloader.dataset.update(fields)
    found = check_datasets(cfg)['train_dataloader']
    assert found.problems == [] and found.skipped == ''
    assert found.counts == dict(images=length, instances=length)
    assert found.classes == dict(person=length)


def test_samples_are_drawn(data):
    cfg = tiny_det(SYNTHETIC, data / 'run', data)
    images = browse(cfg, number=2)
    assert len(images) == 2 and images[0].shape[0] == 400
    assert contact_sheet(cfg, 'train_dataloader').std() > 10
