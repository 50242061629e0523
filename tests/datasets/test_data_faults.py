# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Errors in data are reported with file, value and fix."""
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from animals import TEMPLATE, TINY, annotations, config, save, write_animals
from helpers import run_training, tiny_config
from mmengine.config import Config
from mmengine.structures import PixelData
from PIL import Image
from tiny_tasks import ARCH, CONFIG_FILES, OPTIONS, write_tiny_folders

from hrformer_mm.datasets.validation.common import (
    check_datasets,
    describe_summary,
)
from hrformer_mm.datasets.validation.seg import LabelValues, judge_label
from hrformer_mm.engine import preflight
from hrformer_mm.engine import train as training
from hrformer_mm.engine.hooks.labels import LabelRangeHook

for package in ('mmpose', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)


# Annotation files


ODD = {  # harm to annotation or image 2, and what is said of it
    'null keypoints': (
        lambda a, i: a.update(keypoints=None), 'has the keypoints null'),
    'NaN among keypoints': (
        lambda a, i: a['keypoints'].__setitem__(3, float('nan')),
        'has nan among its keypoints'),
    'negative width': (
        lambda a, i: a['bbox'].__setitem__(2, -5), 'without area'),
    'id of a truth value': (
        lambda a, i: a.update(category_id=True), 'has the category_id True'),
    'text keypoints': (
        lambda a, i: a.update(keypoints='1,2,2'), "has the keypoints '1,2,2'"),
    'nested keypoints': (
        lambda a, i: a.update(keypoints=[[1, 2, 2]] * 6),
        'has nested keypoints [[1, 2, 2]'),
    'null among keypoints': (
        lambda a, i: a['keypoints'].__setitem__(4, None),
        'has null among its keypoints'),
    'text among keypoints': (
        lambda a, i: a['keypoints'].__setitem__(0, '7'),
        "has '7' among its keypoints"),
    'null box': (lambda a, i: a.update(bbox=None), 'has the box null'),
    'nested box': (
        lambda a, i: a.update(bbox=[[1, 2], [3, 4]]),
        'has the box [[1, 2], [3, 4]]; it must be x, y, width, height'),
    'text in a box': (
        lambda a, i: a['bbox'].__setitem__(2, '9'), 'it must be x, y, width'),
    'short box': (lambda a, i: a['bbox'].pop(), 'it must be x, y, width'),
    'infinite box': (
        lambda a, i: a['bbox'].__setitem__(2, float('inf')), 'has the box ['),
    'null area': (lambda a, i: a.update(area=None), 'has the area null'),
    'text area': (lambda a, i: a.update(area='12'), "has the area '12'"),
    'text id': (lambda a, i: a.update(id='two'), "has the id 'two', a text"),
    'text image id': (
        lambda a, i: a.update(image_id='2'), "has the image_id '2', a text"),
    'null category': (
        lambda a, i: a.update(category_id=None), 'has the category_id null'),
    'no width': (lambda a, i: i.pop('width'), 'image 2 lacks width'),
    'no size': (
        lambda a, i: [i.pop('width'), i.pop('height')],
        'image 2 lacks width, height'),
    'null width': (
        lambda a, i: i.update(width=None), 'image 2 has the width null'),
    'text height': (
        lambda a, i: i.update(height='70'), "image 2 has the height '70'"),
    'no file name': (
        lambda a, i: i.pop('file_name'), 'image 2 lacks file_name'),
    'zero width': (
        lambda a, i: i.update(width=0), 'image 2 has the width 0'),
    'negative height': (
        lambda a, i: i.update(height=-3), 'image 2 has the height -3'),
    'no image id': (
        lambda a, i: a.pop('image_id'), 'annotation 2 lacks image_id'),
    'text iscrowd': (
        lambda a, i: a.update(iscrowd='0'), "has the iscrowd '0'"),
    'null iscrowd': (
        lambda a, i: a.update(iscrowd=None), 'has the iscrowd null'),
    'fraction as id': (
        lambda a, i: a.update(id=2.5), 'id 2.5; it must be a whole number'),
    'text id of an image': (
        lambda a, i: [i.update(id='b'), a.update(image_id='b')],
        "image 'b' has the id 'b', a text"),
}


@pytest.mark.parametrize('name', ODD)
def test_a_malformed_annotation_is_reported_once(name, tmp_path):
    root = write_animals(tmp_path / 'cats', images=3)
    content = annotations(root)
    harm, words = ODD[name]
    harm(content['annotations'][1], content['images'][1])
    save(root, 'train', content)
    summary = check_datasets(config(root), workers=2)['train_dataloader']
    assert not summary.skipped
    found = [str(p) for p in summary.problems if words in str(p)]
    assert len(found) == 1, summary.problems
    assert found[0].startswith(f'{root}/annotations/train.json, ')
    # A fault of an id is one of the reference to it, too.
    assert len(summary.problems) == 1 or ' id' in name


@pytest.mark.parametrize('key', ['images', 'annotations'])
@pytest.mark.parametrize('value', [None, 'x', {'a': 1}, [None], [3], [[]]])
def test_a_value_that_should_be_a_list_is_reported(key, value, tmp_path):
    root = write_animals(tmp_path / 'cats', images=1)
    save(root, 'train', dict(annotations(root), **{key: value}))
    summary = check_datasets(config(root), workers=2)['train_dataloader']
    lines = [str(p) for p in summary.problems]
    assert any('train.json' in line and 'it must be' in line
               for line in lines), lines


@pytest.mark.parametrize('categories, words', [
    ({'1': 'cat'}, "has the categories {'1': 'cat'}; it must be a list"),
    (['cat'], "categories[0] is 'cat'; it must be an object"),
    ([dict(name='cat')], 'categories[0] lacks id'),
    ([dict(id='1', name='cat')], "categories[0] has the id '1', a text")])
def test_malformed_categories_are_reported(categories, words, tmp_path):
    root = write_animals(tmp_path / 'cats', images=1)
    for split in ('train', 'val'):
        save(root, split, dict(annotations(root, split),
                               categories=categories))
    for summary in check_datasets(config(root), workers=2).values():
        line, = map(str, summary.problems)
        assert words in line


def test_categories_that_are_not_in_the_list_are_reported(tmp_path):
    root = write_animals(tmp_path / 'cats', images=1)
    for split in ('train', 'val'):
        content = annotations(root, split)
        content['annotations'][0]['category_id'] = 99
        save(root, split, content)
    found = check_datasets(config(root), workers=2)
    for line in (found['val_dataloader'].problems,
                 found['train_dataloader'].warnings):
        assert 'category_id 99, which is not among' in str(line[0])
    assert found['train_dataloader'].problems == []


def test_an_error_that_no_entry_explains_is_reported(tmp_path, monkeypatch):
    """The dataset fails, but each of its annotations can be parsed."""
    from mmpose.datasets import CocoDataset

    def fail(self):
        raise RuntimeError('something new')

    root = write_animals(tmp_path / 'cats', images=1)
    monkeypatch.setattr(CocoDataset, 'load_data_list', fail)
    problem, = check_datasets(config(root))['train_dataloader'].problems
    assert 'cannot be loaded by CocoDataset: RuntimeError' in str(problem)


@pytest.mark.parametrize('categories', ['lacking', None, []])
def test_missing_categories_are_reported_if_evaluation_needs_them(
        categories, tmp_path):
    root = write_animals(tmp_path / 'cats', images=1)
    for split in ('train', 'val'):
        content = annotations(root, split)
        content.pop('categories')
        if categories != 'lacking':
            content['categories'] = categories
        save(root, split, content)
    found = check_datasets(config(root), workers=2)
    line, = map(str, found['val_dataloader'].problems)
    assert line.startswith(f'{root}/annotations/val.json has no categories')
    assert 'categories' not in str(found['train_dataloader'].problems) or (
        categories is None)  # which the loading stops at


@pytest.mark.parametrize('name', ['null keypoints', 'no width', 'short box',
                                  'text id of an image'])
def test_training_reports_the_annotation_that_cannot_be_loaded(name, tmp_path):
    root = write_animals(tmp_path / 'cats', images=2)
    content = annotations(root)
    ODD[name][0](content['annotations'][1], content['images'][1])
    save(root, 'train', content)
    cfg = tiny_config(TEMPLATE, tmp_path / 'run', root, **TINY)
    with pytest.raises(ValueError, match=(
            "train.json, (annotation|image) ('b'|2) ")):
        training.train(cfg)


# Segmentation


def write_masks(root, values, share=.3, suffix='.png', images=3):
    """Masks with the first value, and a share of the others below."""
    for split in ('train', 'val'):
        for folder in ('images', 'labels'):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            mask = np.full((40, 60), values[0], np.uint8)
            for k, value in enumerate(values[1:]):
                mask[k::len(values) - 1][:, :round(60 * share)] = value
            cv2.imwrite(str(root / f'labels/{split}/{i}{suffix}'), mask)
            cv2.imwrite(str(root / f'images/{split}/{i}.jpg'),
                        np.full((40, 60, 3), 90 * i, np.uint8))
    return root


def masks(root, classes=2, **changes):
    kind = dict(type='BaseSegDataset', data_root=str(root),
                data_prefix=dict(img_path='images/train',
                                 seg_map_path='labels/train'),
                metainfo=dict(classes=tuple('abcdefgh'[:classes]),
                              palette=[[i] * 3 for i in range(classes)]))
    return Config(dict(
        default_scope='mmseg', train_dataloader=dict(
            dataset=dict(kind, **changes)),
        model=dict(decode_head=dict(type='OCRHead', num_classes=classes))))


def look(cfg):
    return check_datasets(cfg, workers=2)['train_dataloader']


@pytest.mark.parametrize('share', [.05, .3, .9])
def test_masks_of_0_and_255_for_two_classes_cause_a_warning(share, tmp_path):
    summary = look(masks(write_masks(tmp_path, (0, 255), share)))
    lines = describe_summary(summary)
    assert f'ignored pixels: {100 * share:.1f} %' in lines
    line, = map(str, summary.warnings)
    assert "no other classes than ['a']" in line
    assert 'Convert masks of 0 and 255 to 0 and 1' in line
    assert summary.problems == []


@pytest.mark.parametrize('values, changes, share, warned', [
    ((0, 1), {}, .3, False), ((0, 1, 255), {}, .4, False),
    ((255, 0, 1), {}, .4, True), ((0, 1, 2), dict(reduce_zero_label=True),
                                  .4, True)])
def test_the_share_of_ignored_pixels_is_reported(values, changes, share,
                                                 warned, tmp_path):
    summary = look(masks(write_masks(tmp_path, values, share), **changes))
    note, = [n for n in summary.notes if n.startswith('ignored pixels')]
    ignored = {(0, 1): 0., (0, 1, 255): 20., (255, 0, 1): 60.,
               (0, 1, 2): 60.}[values]
    assert note == f'ignored pixels: {ignored:.1f} %'
    assert bool(summary.warnings) == warned and summary.problems == []


def test_ignored_classes_are_not_counted(tmp_path):
    cfg = masks(write_masks(tmp_path, (0, 1, 2), .4), classes=3)
    cfg.model.decode_head.ignore_index = 0
    summary = look(cfg)
    assert summary.classes['a'] == 0 < summary.classes['b']
    assert 'ignored pixels: 60.0 %' in summary.notes


def test_the_advice_for_one_class_names_another_ignore_index(tmp_path):
    cfg = masks(write_masks(tmp_path, (0, 1)))
    cfg.model.decode_head.ignore_index = 0
    warning, = look(cfg).warnings
    assert str(warning).endswith('two classes. ignore_index is 0')


def test_padding_that_is_taken_for_a_class_is_found(tmp_path):
    cfg = masks(write_masks(tmp_path, (0, 1)))
    cfg.model.data_preprocessor = dict(size=(64, 64), seg_pad_val=255)
    cfg.model.decode_head.ignore_index = 0
    assert look(cfg).problems == []  # our head ignores padding, too
    cfg.model.decode_head.type = 'FCNHead'
    problem, = look(cfg).problems
    assert str(problem).startswith(
        'model.data_preprocessor.seg_pad_val is 255, but '
        'model.decode_head.ignore_index is 0') and problem.fatal


def test_our_head_trains_on_padded_images_with_another_ignore_index():
    from hrformer_mm.models.heads import OCRHead
    torch.manual_seed(0)
    head = OCRHead(in_channels=(4, 8), num_classes=3, channels=8,
                   ocr_channels=4, ignore_index=0, align_corners=False)
    maps = [torch.rand(2, 4, 8, 8), torch.rand(2, 8, 4, 4)]
    labels = torch.randint(0, 3, (2, 1, 16, 16))
    padded = labels.clone()
    padded[..., 10:], labels[..., 10:] = 255, 0
    losses = []
    for label in (labels, padded):
        samples = [SimpleNamespace(gt_sem_seg=PixelData(data=x))
                   for x in label]
        torch.manual_seed(1)
        losses.append(head.loss(maps, samples, None))
    assert all(torch.equal(losses[0][k], losses[1][k]) for k in losses[0])
    assert losses[0]['loss_ohem'].isfinite()


@pytest.mark.parametrize('channels, words', [
    ([0, 0, 1], 'convert its colours to the numbers of the classes'),
    ([1, 1, 1], 'save one of its channels, which are equal')])
def test_a_color_mask_is_reported_with_the_fix(channels, words, tmp_path):
    root = write_masks(tmp_path, (0, 1))
    path = root / 'labels/train/1.png'
    cv2.imwrite(str(path), np.full((40, 60, 3), channels, np.uint8))
    problem, = look(masks(root)).problems
    assert problem.path == str(path) and problem.fatal
    assert problem.what.startswith('has 3 channels') and words in problem.what


@pytest.mark.parametrize('kind', ['16 bits', 'palette', '1 bit'])
def test_label_maps_of_any_depth_are_read(kind, tmp_path):
    root = write_masks(tmp_path, (0, 1))
    label = np.zeros((40, 60), np.uint8)
    label[10:] = 1
    image = Image.fromarray(label)
    if kind == 'palette':
        image.putpalette([200, 0, 0, 0, 0, 90])
    image = {'16 bits': Image.fromarray(label.astype('u2')),
             '1 bit': Image.fromarray(label > 0)}.get(kind, image)
    image.save(root / 'labels/train/1.png')
    assert look(masks(root)).problems == []


@pytest.mark.parametrize('label, words', [
    (np.full((40, 60, 4), 1, 'u1'), 'has 4 channels'),
    (np.full((40, 60), .5, 'f4'), 'has fractions'),
    (np.full((40, 60), 300, 'u2'), r'has the values \[300\]'),
    (np.full((40, 60), -1, 'i4'), r'has the values \[-1\]'),
    (np.full((40, 60), np.nan, 'f4'), 'has fractions'),
], ids=['RGBA', 'float', '16 bits', 'negative', 'NaN'])
def test_label_maps_of_other_types_are_reported(label, words):
    labels = LabelValues(2, 255, False)
    assert re.match(words, judge_label('a', label, None, labels).what)
    assert judge_label('a', np.ones((40, 60), 'f4'), None, labels) is None


@pytest.mark.parametrize('value', [2, 7, 254])
def test_a_label_out_of_range_is_reported_with_the_fix(value, tmp_path):
    root = write_masks(tmp_path, (0, 1))
    path = root / 'labels/train/2.png'
    cv2.imwrite(str(path), np.full((40, 60), value, np.uint8))
    problem, = look(masks(root)).problems
    assert problem.path == str(path)
    assert f'has the values [{value}]; labels are 0 to 1 and 255: give' in (
        problem.what)


def test_labels_renumbered_by_a_transform_cause_only_a_warning(tmp_path):
    from mmcv.transforms import BaseTransform

    class Renumber(BaseTransform):

        def transform(self, results):
            return results

    root = write_masks(tmp_path, (0, 7))
    summary = look(masks(root, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type=Renumber)]))
    assert summary.problems == [] and 'unless Renumber' in str(
        summary.warnings[0])


# Files of other types


def test_images_of_other_types_are_counted_in_segmentation(tmp_path):
    root = write_masks(tmp_path, (0, 1))
    image = np.zeros((40, 60, 3), np.uint8)
    for name in ('7.png', '8.png', '9.webp', '5.JPG'):
        cv2.imwrite(str(root / 'images/train' / name), image)
    (root / 'images/train/notes.txt').write_text('')
    summary = look(masks(root))
    line, = map(str, summary.warnings)
    assert line.startswith(f'{root}/images/train holds 4 images that the '
                           'dataset does not read: 1 .JPG (such as ')
    assert '2 .png (such as' in line and '1 .webp' in line
    assert summary.counts['images'] == 3 and summary.problems == []


def test_labels_beside_images_are_not_counted_as_images(tmp_path):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f'{i}.jpg'), np.zeros((9, 9, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.eye(9, dtype=np.uint8))
    summary = look(masks(tmp_path, data_prefix=dict(
        img_path='', seg_map_path='')))
    assert summary.warnings == summary.problems == []


@pytest.fixture
def root(tmp_path):
    for split in ('train', 'val'):
        for name in ('ant', 'bee'):
            (tmp_path / split / name).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / name / '0.jpg'),
                        np.zeros((20, 20, 3), np.uint8))
    return tmp_path


def classes(root, **changes):
    return Config(dict(
        default_scope='mmpretrain', model=dict(head=dict(num_classes=2)),
        **{f'{split}_dataloader': dict(dataset=dict(
            type='CustomDataset', data_root=str(root), data_prefix=split,
            **changes)) for split in ('train', 'val')}))


def test_images_of_other_types_are_counted_in_class_folders(root):
    for name in ('a.webp', 'b.webp', 'c.tiff'):
        cv2.imwrite(str(root / 'train/ant' / name),
                    np.zeros((9, 9, 3), np.uint8))
    (root / 'train/bee/deep').mkdir()
    (root / 'train/bee/deep/d.GIF').write_bytes(b'GIF89a')
    found = check_datasets(classes(root), workers=2)
    line, = map(str, found['train_dataloader'].warnings)
    assert 'train holds 4 images that the dataset does not read' in line
    for words in ('2 .webp (such as', '1 .tiff', '1 .GIF', 'extensions'):
        assert words in line
    assert found['val_dataloader'].warnings == []
    summary = check_datasets(
        classes(root, extensions=('.jpg', '.webp', '.tiff')),
        workers=2)['train_dataloader']
    assert summary.counts == dict(images=5)
    assert '1 .GIF' in str(*summary.warnings)


# Class folders


@pytest.mark.parametrize('harm, words', [
    (lambda r: (r / 'val/bee').rename(r / 'val/cat'), 'has no folder bee'),
    (lambda r: (r / 'val/cat').mkdir(), 'train has no folder cat'),
    (lambda r: [p.unlink() for p in (r / 'val/bee').iterdir()] and (
        r / 'val/bee').rmdir(), 'val has no folder bee'),
    (lambda r: (r / 'train/.ipynb_checkpoints').mkdir(),
     'counted as class 0 and renumbers others: rm -r'),
    (lambda r: [(r / s / '.cache').mkdir() for s in ('train', 'val')],
     '.cache is a folder of a tool'),
    (lambda r: (r / 'train/__MACOSX').mkdir(), 'counted as class 0'),
])
def test_class_folders_that_differ_stop_every_run(harm, words, root,
                                                  monkeypatch):
    harm(root)
    problems = [p for s in check_datasets(classes(root), workers=2).values()
                for p in s.problems]
    assert any(words in str(p) and p.fatal for p in problems)
    cfg = classes(root)
    cfg.update(train_cfg=dict(max_epochs=1), optim_wrapper=dict(
        optimizer=dict(type='SGD', lr=1.)), test_dataloader=cfg.val_dataloader)
    with pytest.raises(ValueError, match=words):
        training.train(cfg)
    (root / 'x.pth').write_bytes(b'')
    with pytest.raises(ValueError, match=words):
        training.test(cfg, str(root / 'x.pth'))


def test_hidden_files_and_copies_in_class_folders_are_not_reported(root):
    (root / 'train/ant/._0.jpg').write_bytes(b'none')
    found = check_datasets(classes(root), workers=2)['train_dataloader']
    assert found.problems == found.warnings == []
    (root / 'train/ant/.ipynb_checkpoints').mkdir()
    found = check_datasets(classes(root), workers=2)['train_dataloader']
    assert found.problems == [] and 'is hidden' in str(*found.warnings)


# Training without a dry run


def task(name, folder, **options):
    return tiny_config(CONFIG_FILES[name], folder / 'run', folder / 'data', **{
        'model.backbone.arch': ARCH, 'model.backbone.drop_path_rate': 0.},
        **OPTIONS[name], **options)


def test_a_label_out_of_range_stops_classification_with_its_file(tmp_path):
    write_tiny_folders(tmp_path / 'data')
    cfg = task('cls', tmp_path, **{'model.head.num_classes': 1})
    with pytest.raises(ValueError, match=(
            r'train/\d/\d.png has the label \[\d\], but the head has 1 ')):
        run_training(cfg)


def test_a_label_out_of_range_stops_segmentation_with_its_file(tmp_path):
    from seg_data import write_tiny
    write_tiny('cityscapes', tmp_path / 'data')
    for path in (tmp_path / 'data').rglob('train/*/*labelTrainIds.png'):
        cv2.imwrite(str(path), np.full((48, 64), 77, np.uint8))
    cfg = task('seg', tmp_path)
    with pytest.raises(ValueError, match=(
            r'labelTrainIds.png has the labels \[77\]; with 19 classes')):
        run_training(cfg)


@pytest.mark.parametrize('data, words', [
    (torch.zeros(8, 8, 3).long(), r'has the shape \(8, 8, 3\)'),
    (torch.full((1, 8, 8), 3), r'has the labels \[3\]'),
    (torch.full((1, 8, 8), 255), None), (torch.full((1, 8, 8), 2), None)])
def test_the_hook_reports_the_file_of_a_label_map(data, words):
    hook = LabelRangeHook()
    head = SimpleNamespace(num_classes=3, ignore_index=255)
    model = torch.nn.Identity()
    model.decode_head = head
    runner = SimpleNamespace(model=model, iter=0)
    hook.before_train(runner)
    from mmseg.structures import SegDataSample
    sample = SegDataSample(gt_sem_seg=PixelData(data=data))
    sample.set_metainfo(dict(seg_map_path='a/b.png'))
    batch = dict(data_samples=[sample])
    if words is None:
        return hook.before_train_iter(runner, 0, batch)
    with pytest.raises(ValueError, match=f'a/b.png {words}'):
        hook.before_train_iter(runner, 0, batch)


# The dry run


def data_findings(cfg, folder):
    flight = preflight.Flight(cfg, 1, str(folder))
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return [str(f) for f in preflight.inputs.check_data(flight)]


def test_the_dry_run_compares_loaders_and_counts_other_types(root, tmp_path):
    (root / 'val/cat').mkdir()
    cv2.imwrite(str(root / 'train/ant/x.webp'), np.zeros((9, 9, 3), np.uint8))
    lines = data_findings(classes(root), tmp_path)
    assert any(line.startswith('FAIL') and 'has no folder cat' in line
               for line in lines)
    assert any(line.startswith('warn') and '1 .webp' in line
               for line in lines)


def test_the_dry_run_reports_the_annotation_with_the_error(tmp_path):
    root = write_animals(tmp_path / 'cats', images=2)
    content = annotations(root)
    content['annotations'][1]['keypoints'] = None
    save(root, 'train', content)
    lines = data_findings(config(root), tmp_path)
    failed = [line for line in lines if line.startswith('FAIL')]
    assert len(failed) == 1 and 'annotation 2 has the keypoints null' in (
        failed[0])


def test_a_failing_check_does_not_stop_the_run(root, tmp_path, monkeypatch):
    def fail(*args):
        raise AttributeError('something new')

    monkeypatch.setattr(preflight.inputs, 'check_datasets', fail)
    lines = data_findings(classes(root), tmp_path)
    assert not any(line.startswith('FAIL') for line in lines)
    assert any(line.startswith('skip') and 'something new' in line
               for line in lines)


@pytest.mark.parametrize('task_name, dataset, missing', [
    ('mmpretrain', dict(type='CIFAR10', data_root='nowhere'), False),
    ('mmpretrain', dict(type='CIFAR10', data_root='nowhere', download=False),
     True),
    ('mmpretrain', dict(type='CustomDataset', data_root='nowhere'), True),
    ('mmpretrain', dict(type='ConcatDataset', datasets=[
        dict(type='MNIST', data_root='nowhere')]), False)])
def test_data_that_a_dataset_downloads_is_not_reported_as_missing(
        task_name, dataset, missing):
    from hrformer_mm.utils.config_checks import data_paths
    found = [path for _, path in data_paths(dataset, task_name) if path]
    assert bool(found) == missing


def test_home_directories_are_expanded_as_mmpretrain_does(monkeypatch):
    from hrformer_mm.utils.config_checks import data_paths
    monkeypatch.setenv('HOME', '/somewhere')
    for scope, path in (('mmpretrain', '/somewhere/x'), ('mmpose', '~/x')):
        dataset = dict(type='CustomDataset', data_root='~/x')
        assert path in [p for _, p in data_paths(dataset, scope)]
