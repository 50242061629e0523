# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Boxes are matched by path, with their categories; failures stay alone."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from predicting import (
    COCO,
    PERSON,
    names,
    read,
    run,
    smooth,
    write_boxes,
    write_config,
    write_video,
)

from hrformer_mm.apis import detector, inputs, load_predictor, predict
from hrformer_mm.apis.box_files import image_ids
from hrformer_mm.apis.boxes import BoxTable
from hrformer_mm.apis.categories import Categories
from hrformer_mm.apis.cls import ClsPredictor
from hrformer_mm.apis.pose import iou_nms

OTHER = [5., 5., 50., 60.]
PEOPLE = dict(keypoint_name2id={'left_wrist': 0, 'left_knee': 1},
              dataset_name='coco')  # yapf: disable
PAWS = dict(keypoint_name2id={'nose': 0, 'left_paw': 1}, dataset_name='pets')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    return {task: write_config(task, folder) for task in ('pose', 'cls')}


def frame_of(path, index=None):
    kind = 'image' if index is None else 'video'
    return inputs.Frame(inputs.Source(str(path), Path(path).stem, kind),
                        np.zeros((200, 200, 3), 'u1'), index or 0)


def lefts(content, paths, threshold=.5, categories=None):
    """The left edge of the only box of each image, None without a box."""
    table, warnings = BoxTable(content, threshold, categories), []
    table.warn = warnings.append
    frames = [frame_of(*p) if isinstance(p, tuple) else frame_of(p)
              for p in paths]
    table.expect([frame.source for frame in frames])
    found = [table(frame).corners[:, 0].tolist() for frame in frames]
    return [x[0] if x else None for x in found], warnings


def boxes_at(**lefts):
    return {name: [[x, 1, 9, 9]] for name, x in lefts.items()}


# Matching by path


@pytest.mark.parametrize('named, paths, wanted', [
    ({'a/1.jpg': 1, 'b/1.jpg': 2}, ['x/a/1.jpg', 'x/b/1.jpg'], [1, 2]),
    ({'a/1.jpg': 1, 'b/1.jpg': 2}, ['b/1.jpg', 'a/1.jpg'], [2, 1]),
    ({'/data/a/1.jpg': 1, '/data/b/1.jpg': 2}, ['my/b/1.jpg'], [2]),
    ({'C:\\d\\a\\1.jpg': 1, 'C:\\d\\b\\1.jpg': 2}, ['d/b/1.jpg'], [2]),
    ({'./a/1.jpg': 1, 'b//1.jpg': 2}, ['a/1.jpg', 'b/1.jpg'], [1, 2]),
    ({'a/b/1.jpg': 1, 'c/b/1.jpg': 2}, ['a/b/1.jpg', 'c/b/1.jpg'], [1, 2]),
    ({'b/1.jpg': 1, 'a/b/1.jpg': 2}, ['z/b/1.jpg', 'a/b/1.jpg'], [1, 2]),
    ({'1.jpg': 1, 'a/1.jpg': 2}, ['a/1.jpg', 'b/1.jpg'], [2, 1]),
    ({'val2017/1.jpg': 1}, ['photos/1.jpg'], [1]),
    ({'a/1': 1, 'b/1': 2}, ['a/1.jpg', 'b/1.png'], [1, 2]),
    ({'1.jpg': 1, '1.png': 2}, ['1.jpg', '1.png'], [1, 2]),
    ({'a/clip.mp4#1': 1, 'b/clip#1': 2},
     [('a/clip.mp4', 1), ('b/clip.mp4', 1), ('a/clip.mp4', 0)],
     [1, 2, None]),
    ({'a/1.jpg': 1}, ['a/1.jpg', 'a/2.jpg'], [1, None]),
])
def test_an_image_has_the_boxes_of_the_longest_equal_path(named, paths,
                                                          wanted):
    assert lefts(boxes_at(**named), paths) == (wanted, [])


@pytest.mark.parametrize('content, paths, wanted', [
    (boxes_at(**{'a/1.jpg': 1, 'b/1.jpg': 2}), ['c/1.jpg'], [None]),
    (boxes_at(**{'1.jpg': 1}), ['a/1.jpg', 'b/1.jpg'], [None, None]),
    (boxes_at(**{'a/1.jpg': 1}), ['a/1.jpg', 'b/1.jpg'], [1, None]),
    (boxes_at(**{'a/1.jpg': 1}), ['b/1.jpg', 'a/1.jpg'], [None, 1]),
    (boxes_at(**{'a/1.jpg': 1}), ['x/a/1.jpg', 'y/a/1.jpg'], [None, None]),
    ([dict(image_id=1, bbox=[1, 1, 9, 9])], ['a/1.jpg', 'b/001.jpg'],
     [None, None]),
    (boxes_at(**{'1': 1}), ['1.jpg', '1.png'], [None, None]),
    (boxes_at(**{'clip.mp4#0': 1}), [('a/clip.mp4', 0), ('b/clip.mp4', 0)],
     [None, None]),
])
def test_an_ambiguous_name_is_a_warning_and_no_boxes(content, paths, wanted):
    found, warnings = lefts(content, paths)
    assert found == wanted
    assert len(warnings) == wanted.count(None)
    assert all('no boxes are used' in line for line in warnings)


def test_images_that_come_one_by_one_do_not_share_boxes():
    table, warnings = BoxTable(boxes_at(**{'1.jpg': 1}), .5), []
    table.warn = warnings.append
    assert len(table(frame_of('a/1.jpg')).scores) == 1
    assert len(table(frame_of('a/1.jpg')).scores) == 1  # the same again
    assert len(table(frame_of('b/1.jpg')).scores) == 0
    assert len(warnings) == 1 and 'b/1.jpg' in warnings[0]


def test_many_images_of_one_name_are_matched_quickly():
    count = 2000
    content = boxes_at(**{f'{i}/1.jpg': i for i in range(count)})
    paths = [f'data/{i}/1.jpg' for i in reversed(range(count))]
    found, warnings = lefts(content, paths)
    assert found == list(reversed(range(count))) and not warnings


def write_same_names(folder):
    """Two images of one name in two folders, and a dataset of them."""
    for i, name in enumerate('ab'):
        (folder / name).mkdir()
        cv2.imwrite(str(folder / name / '1.jpg'), smooth(i))
    return dict(
        images=[dict(id=70 + i, file_name=f'{name}/1.jpg')
                for i, name in enumerate('ab')],
        annotations=[dict(image_id=70, bbox=PERSON, category_id=1),
                     dict(image_id=71, bbox=OTHER, category_id=1)],
        categories=[dict(id=1, name='person')])  # yapf: disable


def test_equal_names_in_two_folders_keep_their_boxes_and_ids(saved, tmp_path):
    photos, out = tmp_path / 'photos', tmp_path / 'out'
    photos.mkdir()
    boxes = write_boxes(tmp_path / 'b.json', write_same_names(photos))
    assert run(saved, 'pose', photos, '--boxes', boxes, '--out-dir', out) == 0
    found = {p['image_id']: p['bbox'] for p in read(out / 'predictions.json')}
    assert found == {70: PERSON, 71: OTHER}
    images = read(out / 'images.json')['images']
    assert {i['id']: Path(i['file_name']).parent.name for i in images} == {
        70: 'a', 71: 'b'}  # yapf: disable


def test_the_command_warns_of_ambiguous_names(saved, tmp_path, capsys):
    photos, out = tmp_path / 'photos', tmp_path / 'out'
    photos.mkdir()
    write_same_names(photos)
    boxes = write_boxes(tmp_path / 'b.json', {'1.jpg': [PERSON]})
    assert run(saved, 'pose', photos, '--boxes', boxes, '--out-dir', out) == 1
    assert capsys.readouterr().err.count('warning: ') == 2
    assert read(out / 'predictions.json') == []
    assert len(read(out / 'images.json')['images']) == 2


def test_dataset_ids_are_kept_if_another_image_is_not_in_the_dataset():
    assert image_ids(['a/1.jpg', 'b/2.jpg'], [7, None]) == [7, 8]
    assert image_ids(['a/1.jpg', 'b/1.jpg'], [None, None]) == [1, 2]
    assert image_ids(['a/3.jpg', 'b/5.jpg'], [None, None]) == [3, 5]
    assert image_ids(['a.jpg', 'b.jpg'], ['x', None]) == ['x', 1]


# Categories


def dataset(*categories, **more):
    """One image with a box of each category, from left to right."""
    return dict(
        images=[dict(id=1, file_name='1.jpg')],
        annotations=[dict(image_id=1, bbox=[10 * n, 1, 9, 9], category_id=n)
                     for n, _ in categories],
        categories=[dict(id=n, name=name, **more) for n, name in categories]
    )  # yapf: disable


def categories_of(content, **options):
    table = BoxTable(content, .5, Categories(**options))
    boxes = table(frame_of('1.jpg'))
    return [table.categories.written(c) for c in boxes.categories], table


@pytest.mark.parametrize('content, options, wanted', [
    (dataset((2, 'cat'), (3, 'dog')), dict(metainfo=PEOPLE), [2, 3]),
    (dataset((2, 'cat'), (3, 'dog')), dict(metainfo=PAWS), [2, 3]),
    (dataset((1, 'person'), (3, 'dog')), dict(metainfo=PEOPLE), [1]),
    (dataset((4, 'person'), (1, 'dog')), dict(metainfo=PEOPLE), [4]),
    (dataset((1, 'person'), (3, 'dog')), dict(metainfo=PAWS), [1, 3]),
    (dataset((1, 'person'), (3, 'dog')),
     dict(own=[dict(id=9, name='Dog')]), [9]),
    (dataset(*((n, f's{n}') for n in range(1, 8)), keypoints=['nose']),
     dict(metainfo=PAWS), list(range(1, 8))),
    ([dict(image_id=1, bbox=PERSON, category_id=n) for n in (1, 2)],
     dict(own=[dict(id=2, name='cat')]), [2]),
    ([dict(image_id=1, bbox=PERSON, category_id=5)],
     dict(own=[dict(id=2, name='cat')]), [2]),
    ([dict(image_id=1, bbox=PERSON, **{key: name})
      for key in ('category_id', 'category_name', 'category')
      for name in ('cat', 'dog')],
     dict(own=[dict(id=7, name='Cat'), dict(id=40, name='lynx')]), [7] * 3),
    ([dict(image_id=1, bbox=PERSON, category_id=n) for n in (1, 2)],
     dict(metainfo=PEOPLE), [1]),
    ({'1.jpg': [PERSON]}, dict(own=[dict(id=2, name='cat')]), [2]),
    ({'1.jpg': [PERSON]}, dict(metainfo=PAWS), [1]),
    (dataset((2, 'cat'), (3, 'dog')), dict(chosen=['dog']), [3]),
    (dataset((2, 'cat'), (3, 'dog')), dict(chosen=[2]), [2]),
    (dataset((2, 'cat')), dict(chosen=['2']), [2]),
])
def test_boxes_of_the_datasets_own_categories_count(content, options, wanted):
    assert categories_of(content, **options)[0] == wanted


def test_a_category_that_is_not_there_is_rejected():
    with pytest.raises(ValueError, match='cow: the boxes have .* 2 cat'):
        categories_of(dataset((2, 'cat')), chosen=['cow'])


def test_ignored_categories_and_dropped_boxes_are_reported():
    content = dataset((1, 'person'), (3, 'dog'))
    content['annotations'] += [
        dict(image_id=1, bbox=[1, 1, 9, 9], score=.3, category_id=1),
        dict(image_id=1, bbox=[1, 1, 0, 9], category_id=1)]
    _, table = categories_of(content, metainfo=PEOPLE)
    low, invalid, other = table.report()
    assert 'dropped 1 of 3 boxes with a score below 0.5 (--box-thr)' in low
    assert 'dropped 1 of 3 boxes that have no area' in invalid
    assert 'ignored 1 boxes of other categories (3 dog: 1)' in other


@pytest.mark.parametrize('boxes, is_reported', [
    ([[80, 90, 150, 190]], True),
    ([[80, 90, 150, 190], [5, 5, 160, 180]], False),  # as likely as not
    ([[80, 90, 150, 190], [5, 100, 160, 180], [5, 5, 9, 9]], True),
    ([[80, 90, 120, 110]], False),  # a box up to the edges of the image
    ([[1, 1, 200, 200]], False),  # counted from 1
    ([[80, 90, 130, 60]], False),  # reaches beyond, but is not two corners
    ([[-20, 90, 150, 190]], False),
    ([], False),
])
def test_boxes_that_look_like_two_corners_are_reported(boxes, is_reported):
    table = BoxTable({'1.jpg': boxes}, 0)
    table(frame_of('1.jpg'))  # of 200x200
    found = [line for line in table.report() if 'x1, y1, x2, y2' in line]
    assert bool(found) == is_reported


@pytest.mark.parametrize('own, wanted', [
    ([dict(id=2, name='cat')], {2: 'cat'}), ([], {1: 'pets'}),
    ([dict(id=1, name='cat'), dict(id=2, name='dog')],
     {1: 'cat', 2: 'dog'}),
])  # yapf: disable
def test_results_name_the_datasets_categories(own, wanted):
    found = Categories(own, PAWS).describe([])
    assert {c['id']: c['name'] for c in found} == wanted
    assert Categories([], PEOPLE).describe([1]) == [
        dict(id=1, name='person')]


def category_two(photos, tmp_path):
    """A dataset of category 2, and its file of boxes."""
    cv2.imwrite(str(photos / 'pet.jpg'), smooth(0))
    content = dict(
        images=[dict(id=5, file_name='pet.jpg', height=100, width=120)],
        annotations=[dict(id=1, image_id=5, bbox=PERSON, category_id=2,
                          area=3200, iscrowd=0, num_keypoints=17,
                          keypoints=[50, 50, 2] * 17)],
        categories=[dict(id=2, name='cat', keypoints=['nose'] * 17)])
    return content, write_boxes(tmp_path / 'pets.json', content)


@pytest.mark.parametrize('boxes', ['whole', 'file', 'list'])
def test_keypoints_of_category_two_are_evaluated(saved, tmp_path, boxes):
    from pycocotools.cocoeval import COCOeval
    photos, out = tmp_path / 'photos', tmp_path / 'out'
    photos.mkdir()
    content, path = category_two(photos, tmp_path)
    if boxes == 'list':
        boxes = write_boxes(tmp_path / 'l.json', {'pet.jpg': [PERSON]})
    # As MMEngine writes the categories of a dataset of MMPose.
    weights = torch.load(saved['pose'][1], weights_only=True)
    weights['meta'] = dict(dataset_meta=dict(CLASSES=content['categories']))
    torch.save(weights, tmp_path / 'w.pth')
    pair = (saved['pose'][0], str(tmp_path / 'w.pth'))
    assert run(dict(pose=pair), 'pose', photos, '--boxes',
               path if boxes == 'file' else boxes, '--out-dir', out) == 0
    found, = read(out / 'predictions.json')
    assert found['category_id'] == 2
    category, = read(out / 'images.json')['categories']
    assert (category['id'], category['name']) == (2, 'cat')
    perfect = dict(found, image_id=5,
                   keypoints=content['annotations'][0]['keypoints'])
    (tmp_path / 'p.json').write_text(json.dumps([perfect]))
    truth = COCO(path)
    judge = COCOeval(truth, truth.loadRes(str(tmp_path / 'p.json')),
                     'keypoints')
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[0] == pytest.approx(1)


def test_categories_come_from_the_annotations_of_the_config(saved, tmp_path):
    content, path = category_two(tmp_path, tmp_path)
    from hrformer_mm.engine.train import read_config
    cfg = read_config(saved['pose'][0])
    cfg.test_dataloader.dataset.update(data_root='', ann_file=path)
    predictor = load_predictor(cfg, saved['pose'][1], device='cpu',
                               boxes='whole')
    assert list(predictor.categories.own) == [2]


def test_a_detector_takes_the_classes_of_the_dataset():
    name = detector.DETECTOR
    cats = Categories([dict(id=2, name='cat'), dict(id=5, name='lynx')])
    assert detector.detected_labels(name, cats) == {17}
    assert cats.written(17) == 2
    hands = Categories([dict(id=1, name='hand')])
    with pytest.raises(ValueError, match='not the classes of this model'):
        detector.detected_labels(name, hands)
    people = Categories(metainfo=PEOPLE)
    assert detector.detected_labels(name, people) == {1}


# Failures of one image


def test_two_objects_of_a_dataset_without_sigmas(saved, tmp_path):
    from hrformer_mm.engine.train import read_config
    cfg = read_config(saved['pose'][0])
    info = dict(
        dataset_name='dots', skeleton_info={}, joint_weights=[1.] * 17,
        sigmas=[],
        keypoint_info={i: dict(name=f'p{i}', id=i, color=[9, 9, 9], type='',
                               swap='') for i in range(17)})
    cfg.test_dataloader.dataset.metainfo = info
    cv2.imwrite(str(tmp_path / '1.jpg'), smooth(0))
    outcome = predict(cfg, saved['pose'][1], [tmp_path / '1.jpg'],
                      tmp_path / 'out', device='cpu',
                      boxes={'1.jpg': [PERSON, OTHER, PERSON]})
    assert not outcome.failed
    found = read(tmp_path / 'out/predictions.json')
    assert sorted(p['bbox'] for p in found) == [OTHER, PERSON]
    assert {c['name'] for c in read(tmp_path / 'out/images.json')[
        'categories']} == {'dots'}


def test_duplicate_boxes_are_dropped_by_overlap():
    corners = np.array([[0, 0, 9, 9], [0, 0, 9, 9.5], [5, 5, 9, 9]], float)
    assert iou_nms(corners, np.array([.5, .9, .1]), .9) == [1, 2]
    assert iou_nms(corners[:0], np.zeros(0), .9) == []


@pytest.mark.parametrize('stage', ['samples', 'test_step', 'gather', 'draw',
                                   'record', 'write_image'])
def test_a_failing_image_does_not_lose_the_results_of_others(
        saved, tmp_path, monkeypatch, stage):
    for i in range(4):
        cv2.imwrite(str(tmp_path / f'{i}.png'), smooth(i))
    bad = cv2.imread(str(tmp_path / '2.png'))

    def broken(real, is_bad):

        def call(*args):
            if is_bad(*args):
                raise RuntimeError('broken on purpose')
            return real(*args)

        return call

    def is_bad_frame(self, frame, *args):
        return Path(frame.source.path).name == '2.png'

    if stage == 'test_step':
        from mmpretrain.models import ImageClassifier
        monkeypatch.setattr(ImageClassifier, 'test_step', broken(
            ImageClassifier.test_step, lambda model, data: any(
                Path(s.img_path).name == '2.png'
                for s in data['data_samples'])))
    elif stage == 'write_image':
        from hrformer_mm.apis.outputs import Outputs
        monkeypatch.setattr(Outputs, stage, broken(
            Outputs.write_image, lambda self, name, image: '2.png' in name))
    else:
        monkeypatch.setattr(ClsPredictor, stage, broken(
            getattr(ClsPredictor, stage), is_bad_frame))
    out = tmp_path / 'out'
    outcome = predict(*saved['cls'], tmp_path, out, device='cpu', batch_size=4)
    assert bad is not None and len(outcome.failed) == 1
    assert 'broken on purpose' in outcome.failed[0]
    assert '2.png' in outcome.failed[0]
    done = {Path(r['file_name']).name for r in read(out / 'predictions.json')}
    kept = stage in ('draw', 'write_image')  # the result is, undrawn
    assert done == {'0.png', '1.png', '3.png'} | ({'2.png'} if kept else set())
    assert 'overlays/2.png' not in names(out) and \
        'overlays/3.png' in names(out)


def test_an_error_for_all_images_keeps_earlier_results(saved, tmp_path,
                                                       monkeypatch):
    video = str(write_video(tmp_path / 'clip.mp4'))
    from hrformer_mm.apis import run as run_module
    real, frames = run_module.Run.write_frame, []

    def fail(self, *args):
        frames.append(args)
        if len(frames) > 3:
            raise SystemError('all is lost')
        real(self, *args)

    monkeypatch.setattr(run_module.Run, 'write_frame', fail)
    with pytest.raises(SystemError, match='all is lost'):
        predict(*saved['cls'], video, tmp_path / 'out', device='cpu')
    assert len(read(tmp_path / 'out/predictions.json')) == 3


def test_a_batch_too_large_for_the_memory_is_halved(saved, tmp_path,
                                                    monkeypatch, capsys):
    from mmpretrain.models import ImageClassifier
    real, sizes = ImageClassifier.test_step, []

    def limited(self, data):
        sizes.append(len(data['inputs']))
        if sizes[-1] > 1:
            raise torch.cuda.OutOfMemoryError('of the GPU')
        return real(self, data)

    monkeypatch.setattr(ImageClassifier, 'test_step', limited)
    for i in range(5):
        cv2.imwrite(str(tmp_path / f'{i}.png'), smooth(i))
    predict(*saved['cls'], tmp_path, tmp_path / 'out', device='cpu',
            batch_size=2)
    assert len(read(tmp_path / 'out/predictions.json')) == 5
    assert sizes == [2, 1, 1, 1, 1, 1]
    assert '2 images at once do not fit' in capsys.readouterr().err
