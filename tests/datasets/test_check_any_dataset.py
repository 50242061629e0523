# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Datasets in wrappers and of any class are checked or skipped."""
import json
from importlib import import_module

import cv2
import numpy as np
import pytest
import torch
from animals import NAMES, write_animals
from dataset_samples import (
    Pose,
    centred,
    human_art,
    whole_body,
    write_coco,
    write_maps,
)
from mmengine.config import Config
from seg_data import write_tiny

from hrformer_mm.datasets import keypoint_metainfo as keypoints
from hrformer_mm.datasets.validation.common import (
    check_datasets,
    describe_summary,
)
from hrformer_mm.datasets.validation.metainfo import names_of, read_metainfo
from hrformer_mm.utils.dataset_leaves import datasets_of

for package in ('mmpose', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)


def config(scope, dataset, **others):
    return Config(
        dict(default_scope=scope, model=others.pop('model', dict()),
             train_dataloader=dict(dataset=dataset), **others))


def animals(root, split='train', **changes):
    return dict(
        type='CocoDataset', data_root=str(root),
        metainfo=keypoints.make_metainfo(NAMES),
        ann_file=f'annotations/{split}.json',
        data_prefix=dict(img=f'{split}/'), **changes)


def folders(root, split='train'):
    return dict(type='CustomDataset', data_root=str(root), data_prefix=split)


def city(root):
    return dict(
        type='CityscapesDataset', data_root=str(root),
        data_prefix=dict(img_path='leftImg8bit/train',
                         seg_map_path='gtFine/train'),
        img_suffix='_leftImg8bit.png',
        seg_map_suffix='_gtFine_labelTrainIds.png')


def write_folders(root, names=('ant', 'bee')):
    for split in ('train', 'val'):
        for i, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for k in range(2 + i):
                cv2.imwrite(str(root / f'{split}/{name}/{k}.png'),
                            np.full((9, 8, 3), 40 * k, np.uint8))
    return root


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    write_animals(folder / 'pose')
    write_tiny('cityscapes', folder / 'seg')
    write_folders(folder / 'cls')
    return folder


LEAVES = dict(
    mmpose=lambda data: animals(data / 'pose'),
    mmseg=lambda data: city(data / 'seg'),
    mmpretrain=lambda data: folders(data / 'cls'))
WRAPPERS = {
    'repeat': lambda x: dict(type='RepeatDataset', times=3, dataset=x),
    'balanced': lambda x: dict(
        type='ClassBalancedDataset', oversample_thr=.5, dataset=x),
    'concat': lambda x: dict(type='ConcatDataset', datasets=[x, x]),
    'nested': lambda x: dict(
        type='RepeatDataset', times=2, dataset=dict(
            type='ConcatDataset', datasets=[x])),
}


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('scope', LEAVES)
def test_datasets_inside_wrappers_are_checked(scope, wrapper, data,
                                              monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nothing here may be taken for data
    leaf = LEAVES[scope](data)
    alone = check_datasets(config(scope, leaf))['train_dataloader']
    assert alone.problems == [] and not alone.skipped
    found = check_datasets(config(scope, WRAPPERS[wrapper](leaf)))
    assert len(found) == 1 + (wrapper == 'concat')
    for key, summary in found.items():
        assert summary.counts == alone.counts
        assert summary.problems == summary.warnings == []
        assert ' in ' in summary.dataset
        assert key.startswith('train_dataloader')


def test_every_dataset_in_a_wrapper_has_its_key(data):
    wrapped = WRAPPERS['concat'](LEAVES['mmpose'](data))
    assert [leaf.key for leaf in datasets_of(config('mmpose', wrapped),
                                             'train_dataloader')] == [
        'train_dataloader.dataset.datasets.0',
        'train_dataloader.dataset.datasets.1']


def test_an_error_inside_a_wrapper_is_found(data, tmp_path):
    write_folders(tmp_path)
    (tmp_path / 'train/ant/0.png').write_bytes(b'none')
    wrapped = WRAPPERS['nested'](folders(tmp_path))
    problem, = check_datasets(config('mmpretrain', wrapped))[
        'train_dataloader'].problems
    assert 'ant/0.png cannot be read' in str(problem)


def test_folds_and_mixed_images_are_checked(data):
    folds = dict(type='KFoldDataset', num_splits=2, dataset=LEAVES[
        'mmpretrain'](data))
    mixed = dict(type='MultiImageMixDataset', pipeline=[],
                 dataset=city(data / 'seg'))
    for scope, dataset in (('mmpretrain', folds), ('mmseg', mixed)):
        summary = check_datasets(config(scope, dataset))['train_dataloader']
        assert summary.problems == [] and summary.counts['images'] > 3


def test_a_combined_dataset_is_compared_with_its_own_keypoints(data):
    names = ('nose', 'tail')
    part = animals(data / 'pose', pipeline=[
        dict(type='KeypointConverter', num_keypoints=2,
             mapping=[(0, 0), (5, 1)])])
    combined = dict(type='CombinedDataset', datasets=[part, part],
                    metainfo=keypoints.make_metainfo(names), pipeline=[])
    for outputs, problems in ((2, 0), (6, 1)):
        found = check_datasets(config(
            'mmpose', combined,
            model=dict(head=dict(out_channels=outputs))))
        assert [len(s.problems) for s in found.values()] == [problems] * 2


def test_several_labels_and_tasks_of_an_image_are_checked(data, tmp_path):
    cv2.imwrite(str(tmp_path / '0.png'), np.zeros((9, 9, 3), np.uint8))
    labels = dict(several=[0, 2], one=1)
    for kind, label in (('MultiLabelDataset', labels['several']),
                        ('BaseDataset', labels['one']),
                        ('MultiTaskDataset', dict(a=0, b=[1, 0]))):
        (tmp_path / 'a.json').write_text(json.dumps(dict(
            metainfo=dict(classes=['x', 'y', 'z'], tasks=['a', 'b']),
            data_list=[dict(img_path='0.png', gt_label=label)])))
        dataset = dict(type=kind, data_root=str(tmp_path), ann_file='a.json')
        for classes, count in ((3, 0), (1, int(kind != 'MultiTaskDataset'))):
            cfg = config('mmpretrain', dataset,
                         model=dict(head=dict(num_classes=classes)))
            summary = check_datasets(cfg)['train_dataloader']
            assert summary.counts == dict(images=1)
            assert len(summary.problems) == count
            assert not count or '0.png has the label' in str(
                summary.problems[0])


@pytest.mark.parametrize('scope', LEAVES)
def test_every_registered_dataset_is_checked_or_skipped(scope, tmp_path):
    import_module(f'{scope}.datasets')
    names = import_module(f'{scope}.registry').DATASETS.module_dict
    assert len(names) > 20
    (tmp_path / 'a.json').write_text('{}')
    for name in sorted(names):
        dataset = dict(type=name, data_root=str(tmp_path), ann_file='a.json')
        summary = check_datasets(config(scope, dataset))['train_dataloader']
        lines = describe_summary(summary)
        # Whatever else is said of this empty file, the class itself says it.
        assert summary.skipped or summary.counts or any(
            'cannot be loaded by' in line or 'metainfo lacks' in line
            for line in lines), name
        assert not summary.skipped or len(lines) == 1, name


# Classes whose files have another format, or that are no datasets alone.
OTHER_FORMATS = dict(
    mmpose={'BaseCocoStyleDataset', 'InterHand2DDoubleDataset', 'MpiiDataset',
            'InterHand3DDataset', 'MpiiTrbDataset'},
    mmseg={'DSDLSegDataset', 'DecathlonDataset', 'MultiImageMixDataset'})


def write_keypoints(name, kind, root):
    """Write annotations with all keys that any class of MMPose reads."""
    dataset = dict(type=name, data_root=str(root), data_prefix=dict(
        img='images/'), ann_file='annotations/train.json')
    if name == 'DeepFashionDataset':
        dataset['subset'] = 'full'
    if name == 'PoseTrack18VideoDataset':
        dataset.update(frame_sampler_mode='fixed', frame_indices=[-1, 0],
                       frame_weights=[.5, .5], ph_fill_len=2)
    leaf, = datasets_of(config('mmpose', dataset), 'train_dataloader')
    try:
        points = len(names_of(read_metainfo(leaf)[0]))
    except ValueError:  # not of keypoints in images
        points = 17
    write_coco(Pose(
        points, image=dict(crowdIndex=.4, nframes=4, frame_id=1),
        more=lambda a, rng: {
            **whole_body(a, rng), **centred(a, rng), **human_art(a, rng),
            'face_valid': True, 'track_id': 1, 'head_size': 5.}))(root)
    return dataset


def write_labels(name, kind, root):
    """Write images and label maps that end as a class of MMSeg reads them."""
    dataset = dict(type=name, data_root=str(root), data_prefix=dict(
        img_path='a', img_path2='a', seg_map_path='b'))
    (root / 'list.txt').write_text('0\n1\n2\n3\n')
    for folder in 'ab':  # some classes look for them at once
        (root / folder).mkdir()
    try:
        own = kind(pipeline=[], lazy_init=True, **{
            k: v for k, v in dataset.items() if k != 'type'})
    except (AssertionError, TypeError):  # it needs a list
        dataset['ann_file'] = 'list.txt'
        own = kind(pipeline=[], lazy_init=True, **{
            k: v for k, v in dataset.items() if k != 'type'})
    zero = int(own.reduce_zero_label)
    ends = [e[0] if isinstance(e, tuple) else e
            for e in (own.img_suffix, own.seg_map_suffix)]
    write_maps(f'a/{{i}}{ends[0]}', f'b/{{i}}{ends[1]}', zero,
               zero + len(own.metainfo.get('classes') or 'ab'))(root)
    return dataset


@pytest.mark.parametrize('scope, write', [
    pytest.param('mmpose', write_keypoints, marks=pytest.mark.slow),
    ('mmseg', write_labels)])
def test_valid_files_of_every_registered_dataset_have_no_problems(
        scope, write, tmp_path):
    import_module(f'{scope}.datasets')
    kinds = import_module(f'{scope}.registry').DATASETS.module_dict
    checked = 0
    for name in sorted({*kinds} - OTHER_FORMATS[scope]):
        (tmp_path / name).mkdir()
        dataset = write(name, kinds[name], tmp_path / name)
        summary = check_datasets(
            config(scope, dataset), workers=2)['train_dataloader']
        assert summary.problems == [], name
        assert summary.skipped or summary.counts['images'] == 4, name
        checked += not summary.skipped
    assert checked > 20


@pytest.mark.parametrize('scope', LEAVES)
def test_a_dataset_that_is_not_registered_is_a_problem(scope):
    summary = check_datasets(config(scope,
                                    dict(type='NoSuch')))['train_dataloader']
    problem, = map(str, summary.problems)
    assert 'NoSuch is not in the' in problem and not summary.skipped


class Numbers(torch.utils.data.Dataset):
    """A dataset of PyTorch, of which nothing else is known."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return dict(inputs=index)


@pytest.mark.parametrize('scope', LEAVES)
def test_any_dataset_of_pytorch_is_skipped_in_one_line(scope):
    leaf = dict(type=Numbers)
    for dataset in (leaf, dict(type='RepeatDataset', times=2, dataset=leaf),
                    dict(type='ConcatDataset', datasets=[leaf, leaf])):
        for summary in check_datasets(config(scope, dataset)).values():
            line, = describe_summary(summary)
            assert line.startswith('not checked: Numbers')


def test_a_check_that_fails_is_skipped(data, monkeypatch):
    def fail(*args):
        raise AttributeError('something new')

    monkeypatch.setattr('hrformer_mm.datasets.validation.pose.check_file',
                        fail)
    summary = check_datasets(config(
        'mmpose', LEAVES['mmpose'](data)))['train_dataloader']
    assert describe_summary(summary) == [
        'not checked: AttributeError: something new']


# What metrics ask for


@pytest.mark.parametrize('key', ['area', 'iscrowd', 'num_keypoints'])
@pytest.mark.parametrize('metric, asked', [
    (dict(type='CocoMetric'), ('area', )),
    (dict(type='CocoMetric', use_area=False), ()),
    (dict(type='CocoMetric', iou_type='keypoints_crowd'),
     ('area', 'num_keypoints')),
    (dict(type='PCKAccuracy'), ()), ([dict(type='EPE'), dict(type='AUC')], ())
])
def test_missing_keys_are_reported_only_if_the_metric_needs_them(
        metric, asked, key, tmp_path):
    root = write_animals(tmp_path / 'cats', images=1)
    path = root / 'annotations/val.json'
    content = json.loads(path.read_text())
    del content['annotations'][0][key]
    path.write_text(json.dumps(content))
    cfg = Config(dict(default_scope='mmpose', model=dict(),
                      val_evaluator=metric,
                      val_dataloader=dict(dataset=animals(root, 'val'))))
    found = [str(p) for p in check_datasets(cfg)['val_dataloader'].problems]
    assert found == ([f'{path}, annotation 1 lacks {key}'] if key in asked
                     else [])


@pytest.mark.parametrize('metric, asked', [
    ('CocoMetric', True), ('PCKAccuracy', False), ('NME', False)])
def test_missing_sigmas_are_reported_only_if_the_metric_needs_them(
        metric, asked, tmp_path):
    root = write_animals(tmp_path / 'cats', images=1)
    dataset = animals(root, 'val')
    dataset['metainfo'] = dict(dataset['metainfo'], sigmas=[])
    cfg = Config(dict(default_scope='mmpose', model=dict(),
                      val_evaluator=dict(type=metric),
                      val_dataloader=dict(dataset=dataset)))
    found = [str(p) for p in check_datasets(cfg)['val_dataloader'].problems]
    assert found == ['metainfo of custom has 0 sigmas for 6 keypoints'
                     ] * asked
