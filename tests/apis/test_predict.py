# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predictions equal those of the frameworks; batches, boxes and results."""

import cv2
import numpy as np
import pytest
import torch
from helpers import SHARED
from mmengine.config import Config
from mmengine.registry import DefaultScope
from predicting import (
    COCO,
    CONFIG_FILES,
    PERSON,
    arguments,
    names,
    read,
    run,
    smooth,
    write_boxes,
    write_configs,
    write_photos,
)
from tool_runs import error_of

from hrformer_mm.__main__ import main
from hrformer_mm.apis import load_predictor
from hrformer_mm.visualization import drawing


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    return write_configs(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='module')
def predictors(saved):
    """One for each task, on CPU; pose takes the whole image."""
    return {
        task: load_predictor(*pair, device='cpu', batch_size=4, **dict(
            boxes='whole') if task == 'pose' else {})
        for task, pair in saved.items()
    }  # yapf: disable


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp('photos'))


@pytest.mark.parametrize('task', ['pose', 'seg', 'cls'])
def test_datasets_inside_wrappers_give_the_same_predictions(
        task, saved, predictors, photos):
    config, weights = saved[task]
    cfg = Config.fromfile(config)
    inner = cfg.test_dataloader.dataset
    wrapper = dict(type='ConcatDataset', datasets=[inner, inner])
    if task == 'pose':  # its keypoints are those of the wrapper
        wrapper = dict(
            type='CombinedDataset', pipeline=inner.pop('pipeline'),
            metainfo=dict(from_file='configs/_base_/datasets/coco.py'),
            datasets=[dict(inner, type='AicDataset', pipeline=[
                dict(type='KeypointConverter', num_keypoints=17, mapping=[])
            ])])  # yapf: disable
    cfg.test_dataloader.dataset = wrapper
    options = dict(boxes='whole') if task == 'pose' else {}
    found = load_predictor(cfg, weights, device='cpu', **options)
    assert str(found.meta) == str(predictors[task].meta)
    path = str(min(photos.iterdir()))
    for a, b in zip(found([path]), predictors[task]([path]), strict=True):
        a, b = (x.keypoints if task == 'pose' else x for x in (a, b))
        assert np.array_equal(np.asarray(a), np.asarray(b))


# The same as the frameworks say. Folding batch norms moves the last digits.


def test_keypoints_equal_those_of_mmpose(saved, predictors, photos):
    from mmpose.apis import inference_topdown, init_model
    model = init_model(*saved['pose'], device='cpu')
    paths = sorted(map(str, photos.iterdir()))
    for path, found in zip(paths, predictors['pose'](paths)):
        truth = inference_topdown(model, path)[0].pred_instances
        assert np.allclose(found.keypoints, truth.keypoints, atol=.05)
        assert np.allclose(found.keypoint_scores, truth.keypoint_scores,
                           atol=1e-3)


def test_labels_equal_those_of_mmseg(saved, predictors, photos):
    from mmseg.apis import inference_model, init_model
    model = init_model(*saved['seg'], device='cpu')
    paths = sorted(map(str, photos.iterdir()))
    for path, found in zip(paths, predictors['seg'](paths)):
        truth = inference_model(model, path).pred_sem_seg.data[0].numpy()
        assert found.shape == truth.shape
        assert (found == truth).mean() > .999


def test_scores_equal_those_of_mmpretrain(saved, predictors, photos):
    from mmpretrain import ImageClassificationInferencer
    paths = sorted(map(str, photos.iterdir()))
    # It builds in the scope that was used last.
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        judge = ImageClassificationInferencer(*saved['cls'], device='cpu')
    for truth, found in zip(judge(paths), predictors['cls'](paths)):
        assert np.allclose(found, truth['pred_scores'], atol=1e-5)
        assert truth['pred_class'] == 'abcdefghij'[found.argmax()]


def test_the_inferencer_of_mmpose_takes_our_configs(saved, photos, tmp_path):
    from mmpose.apis import MMPoseInferencer
    config, weights = saved['pose']
    judge = MMPoseInferencer(pose2d=config, pose2d_weights=weights,
                             device='cpu', det_model='whole_image')
    found = list(judge(str(photos), out_dir=str(tmp_path)))
    people = [p for image in found for p in image['predictions'][0]]
    assert len(people) == 4 and len(people[0]['keypoints']) == 17
    assert len(list(tmp_path.glob('visualizations/*.png'))) == 4


def test_the_inferencer_of_mmseg_takes_our_configs(saved, photos, tmp_path):
    from mmseg.apis import MMSegInferencer
    judge = MMSegInferencer(*saved['seg'], device='cpu')
    paths = sorted(map(str, photos.iterdir()))
    found = judge(paths, out_dir=str(tmp_path), show=False)['predictions']
    assert [x.shape for x in found] == [(100, 120)] * 3 + [(90, 70)]
    assert len(list(tmp_path.glob('vis/*'))) == 4


# Batches


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_the_batch_size_does_not_change_the_results(predictors, photos, task):
    predictor = predictors[task]
    paths = sorted(map(str, photos.iterdir()))
    together = list(predictor(paths))
    for path, found in zip(paths, together):
        alone, = predictor([path])
        first, second = (x[0] if task == 'pose' else x for x in (found, alone))
        assert np.allclose(first, second, atol=1e-3)


def test_a_batch_contains_people_of_several_images(saved, photos, monkeypatch):
    predictor = load_predictor(
        *saved['pose'], device='cpu', batch_size=3,
        boxes={str(i): [PERSON] * n for i, n in enumerate((2, 0, 2, 1))})
    sizes, step = [], predictor.model.test_step

    def count(data):
        sizes.append(len(data['inputs']))
        return step(data)

    monkeypatch.setattr(predictor.model, 'test_step', count)
    images = [smooth(i) for i in range(4)]
    monkeypatch.setattr(predictor, 'distinct',
                        lambda people, areas: list(range(len(areas))))
    found = [len(people.scores) for people in predictor(images)]
    assert found == [2, 0, 2, 1] and sizes == [3, 2]


def test_images_of_other_sizes_are_not_in_one_batch(predictors, monkeypatch):
    sizes = []
    predictor = predictors['seg']
    predictor.pipeline.transforms, steps = [
        step for step in predictor.pipeline.transforms
        if type(step).__name__ != 'Resize'
    ], predictor.pipeline.transforms
    step = predictor.model.test_step
    monkeypatch.setattr(predictor.model, 'test_step', lambda data: (
        sizes.append(len(data['inputs'])), step(data))[1])
    images = [smooth(i, *size) for i, size in enumerate(
        [(32, 32)] * 5 + [(32, 64)] * 2)]
    found = [x.shape for x in predictor(images)]
    predictor.pipeline.transforms = steps
    assert sizes == [4, 1, 2]
    assert found == [x.shape[:2] for x in images]


def test_too_large_a_batch_is_reported(predictors, monkeypatch):

    def fail(data):
        raise torch.cuda.OutOfMemoryError('of the GPU')

    monkeypatch.setattr(predictors['cls'].model, 'test_step', fail)
    with pytest.raises(ValueError, match='2 images at once .* --batch-size'):
        list(predictors['cls']([smooth(0), smooth(1)]))


# What is written


def test_results_of_pose_load_in_pycocotools(saved, photos, tmp_path):
    assert run(saved, 'pose', photos, '--out-dir', tmp_path) == 0
    assert names(tmp_path) == {
        'predictions.json', 'images.json',
        *(f'overlays/{i}.png' for i in range(4))}  # yapf: disable
    images = COCO(str(tmp_path / 'images.json'))
    found = images.loadRes(str(tmp_path / 'predictions.json'))
    # Files called by numbers have these numbers, as images of COCO have.
    assert sorted(images.imgs) == [0, 1, 2, 3]
    assert images.imgs[3]['file_name'] == str(photos / '3.png')
    assert (images.imgs[3]['width'], images.imgs[3]['height']) == (70, 90)
    ann, = found.loadAnns(found.getAnnIds(imgIds=[3]))
    assert len(ann['keypoints']) == 51 and ann['bbox'] == [0, 0, 70, 90]
    assert images.cats[1]['keypoints'][0] == 'nose'


def test_the_score_of_a_person_equals_that_of_the_metric():
    from hrformer_mm.apis.pose import person_scores
    found = person_scores(np.array([[.1, .4, .6], [.1, .1, .1]]),
                          np.array([.5, 1.]))
    assert np.allclose(found, [.25, 0])


def test_results_of_segmentation_are_label_maps(saved, photos, predictors,
                                                tmp_path):
    assert run(saved, 'seg', photos, '--out-dir', tmp_path) == 0
    content = read(tmp_path / 'predictions.json')
    image = content['images'][3]
    labels = cv2.imread(str(tmp_path / image['labels']), -1)
    truth, = predictors['seg']([str(photos / '3.png')])
    assert labels.dtype == np.uint8 and (labels == truth).all()
    assert sum(image['shares'].values()) == pytest.approx(1, abs=1e-3)
    assert content['classes'][0] == dict(
        label=0, name='road', color=[128, 64, 128])
    drawn = cv2.imread(str(tmp_path / 'overlays/3.png'))
    assert drawn.shape == (90, 70, 3)


def test_results_of_classification_are_sorted(saved, photos, tmp_path):
    assert run(saved, 'cls', photos, '--out-dir', tmp_path) == 0
    first = read(tmp_path / 'predictions.json')[0]
    scores = [guess['score'] for guess in first['classes']]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    assert {guess['name'] for guess in first['classes']} < set('abcdefghij')


# Boxes


@pytest.mark.parametrize('content', [
    {'0.png': [PERSON], '1.png': [[*PERSON, .9], [0, 0, 5, 5, .1]]},
    [dict(image_id=0, bbox=PERSON), dict(image_id=1, bbox=PERSON, score=.9)],
    [dict(image_id='0.png', bbox=PERSON), dict(image_id='1', bbox=PERSON),
     dict(image_id='1', bbox=PERSON, category_id=3)],
    dict(images=[dict(id=7, file_name='val/0.png'),
                 dict(id=8, file_name='1.png'), dict(id=9, file_name='2.png'),
                 dict(id=10, file_name='3.png')],
         annotations=[dict(image_id=7, bbox=PERSON, iscrowd=0),
                      dict(image_id=7, bbox=PERSON, iscrowd=1),
                      dict(image_id=8, bbox=PERSON)]),
], ids=['by name', 'of detectors', 'of several classes', 'dataset'])
def test_boxes_are_read_from_all_file_formats(saved, photos, tmp_path,
                                              content):
    boxes = write_boxes(tmp_path / 'boxes.json', content)
    out = tmp_path / 'out'
    assert run(saved, 'pose', photos, '--boxes', boxes, '--out-dir', out) == 0
    people = read(out / 'predictions.json')
    ids = [7, 8] if 'images' in content else [0, 1]
    assert [p['image_id'] for p in people] == ids
    assert all(p['bbox'] == PERSON for p in people)
    assert len(names(out / 'overlays')) == 4  # nobody is in two of them


def test_names_of_regions_do_not_overlap(monkeypatch):
    taken, write = [], drawing.draw_text
    monkeypatch.setattr(drawing, 'draw_text', lambda *args: taken.append(
        write(*args)) or taken[-1])
    labels = np.full((120, 160), 9)
    labels[:, 50:80], labels[:, 80:110] = 0, 1
    image = np.zeros((120, 160, 3), 'u1')
    drawing.name_regions(image, labels, ['vegetation', 'building'])
    one, other = taken
    assert one.bottom < other.top or other.bottom < one.top
    for r in taken:
        assert image[r.top:r.bottom, r.left:r.right].max() > 240


def test_boxes_without_an_image_are_reported(saved, photos, tmp_path, capsys):
    boxes = write_boxes(tmp_path / 'boxes.json', {'other.png': [PERSON]})
    out = tmp_path / 'out'
    assert run(saved, 'pose', photos, '--boxes', boxes, '--out-dir', out) == 1
    assert "images are named 'other.png'" in capsys.readouterr().err


@pytest.mark.parametrize('text, words', [
    ('{"a.jpg": [[1, 2]]}', 'boxes are a list of'),
    ('[{"image": 1}]', 'boxes are a list of'), ('7', 'boxes are a list of'),
    ('{', 'is not a JSON file'), (None, 'no boxes at'),
])
def test_boxes_in_other_formats_are_rejected(saved, photos, tmp_path, capsys,
                                             text, words):
    path = tmp_path / 'boxes.json'
    if text is not None:
        path.write_text(text)
    assert words in error_of(main, arguments(
        saved['pose'], photos, '--boxes', path, '--out-dir', tmp_path / 'out'),
                             capsys)
    assert not (tmp_path / 'out').exists()


@pytest.mark.skipif(not (SHARED / 'data/coco_mini').is_dir(),
                    reason='no real images beside the checkout')
def test_real_images_with_real_boxes(saved, tmp_path):
    data = SHARED / 'data/coco_mini'
    for boxes, least in (('person_keypoints', 10), ('person_detections', 4)):
        out = tmp_path / boxes
        assert run(saved, 'pose', data / 'images', '--boxes',
                   data / f'{boxes}.json', '--out-dir', out) == 0
        truth = COCO(str(data / 'person_keypoints.json'))
        found = truth.loadRes(str(out / 'predictions.json'))
        assert len(found.anns) >= least
        assert len(names(out / 'overlays')) == 4
