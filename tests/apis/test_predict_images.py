# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A predictor takes one image or several, as paths, arrays or PIL images."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from predicting import CONFIG_FILES, PERSON, smooth, write_configs

from hrformer_mm.apis import load_predictor, predict
from hrformer_mm.apis.images import as_bgr, from_pil


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    return write_configs(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='module')
def predictors(saved):
    return {
        task: load_predictor(
            Path(pair[0]), Path(pair[1]), device='cpu',
            **(dict(boxes='whole') if task == 'pose' else {}))
        for task, pair in saved.items()
    }  # yapf: disable


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp('photo') / 'photo.png'
    cv2.imwrite(str(file), smooth(0))
    return file


@pytest.fixture(scope='module')
def wanted(predictors):
    """Results of the image as one array in a list."""
    return {task: values(next(iter(predictor([smooth(0)]))))
            for task, predictor in predictors.items()}


def values(found):
    return found.keypoints if hasattr(found, 'keypoints') else found


@pytest.mark.parametrize('task', CONFIG_FILES)
@pytest.mark.parametrize('kind', ['array', 'path', 'Path', 'PIL', 'RGBA',
                                  'view'])
def test_one_image_has_one_result(predictors, wanted, path, task, kind):
    image = smooth(0)
    one = dict(array=image, path=str(path), Path=path,
               PIL=Image.open(path), RGBA=Image.open(path).convert('RGBA'),
               view=image[..., ::-1].copy()[..., ::-1])[kind]
    found, = predictors[task](one)
    np.testing.assert_array_equal(values(found), wanted[task])


@pytest.mark.parametrize('kind', ['array', 'path', 'Path', 'PIL'])
@pytest.mark.parametrize('form', [list, tuple, iter])
def test_one_image_in_a_list_has_one_result(predictors, wanted, path, kind,
                                            form):
    image = dict(array=smooth(0), path=str(path), Path=path,
                 PIL=Image.open(path))[kind]
    found, = predictors['cls'](form([image]))
    np.testing.assert_array_equal(found, wanted['cls'])


def test_the_result_of_one_image_can_be_used_directly(predictors, path):
    people = predictors['pose'](path)
    assert people.keypoints.shape == (1, 17, 2)
    assert len(people.scores) == 1 and len(list(people)) == 1
    assert predictors['seg'](path).shape == (100, 120)
    with pytest.raises(AttributeError, match='iterate'):
        predictors['pose']([path, path]).keypoints
    assert predictors['seg'](path)[0].shape == (100, 120)
    with pytest.raises(TypeError, match='list'):
        predictors['pose']([path, path])[0]


def test_a_batch_as_one_array_is_several_images(predictors):
    batch = np.stack([smooth(i) for i in range(3)])
    assert len(list(predictors['cls'](batch))) == 3
    assert len(list(predictors['cls']([]))) == 0


@pytest.mark.parametrize('image, words', [
    (np.zeros((3, 20, 30), 'u1'), r'\[3, 20, 30\]; use image.transpose'),
    (np.zeros((20, 30, 5), 'u1'), 'got shape'),
    (np.zeros((2, 3, 4, 5, 3), 'u1'), 'got shape'),
    (np.zeros(7, 'u1'), 'got shape'),
    (np.zeros((0, 30, 3), 'u1'), 'empty'),
    (np.full((20, 30, 3), .5, 'f4'), 'float32 from 0.5 to 0.5: use .255'),
    (np.full((20, 30, 3), np.nan, 'f4'), 'NaN'),
    (np.full((20, 30, 3), 300, 'i4'), 'int32 from 300 to 300'),
    (np.full((20, 30, 3), -2.1, 'f8'), 'normalized'),
    (np.full((20, 30, 3), 4000, 'u2'), 'image // 257'),
    (np.zeros((20, 30, 3), bool), 'uint8, got bool'),
    (np.zeros((20, 30, 3), 'c8'), 'uint8, got complex64'),
    (np.zeros((20, 30, 3), object), 'uint8, got object'),
])
def test_an_array_that_is_no_image_is_rejected(predictors, image, words):
    with pytest.raises(ValueError, match=words):
        list(predictors['cls'](image))
    with pytest.raises(ValueError, match=words):
        list(predictors['cls']([image]))


@pytest.mark.parametrize('image', [
    smooth(0).astype('i8'), smooth(0).astype('f4'), smooth(0).astype('u2'),
    smooth(0)[..., ::-1][..., ::-1], np.dstack([smooth(0), smooth(1)[..., 0]]),
], ids=['int64', 'float32', 'uint16', 'view', 'alpha'])
def test_arrays_with_the_right_range_are_images(image):
    np.testing.assert_array_equal(as_bgr(image), smooth(0))


def test_grey_arrays_are_three_equal_channels():
    grey = smooth(0)[..., 0]
    for image in (grey, grey[..., None]):
        assert (as_bgr(image) == grey[..., None]).all()
        assert as_bgr(image).shape == (100, 120, 3)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK',
                                  'HSV', 'I', 'F', 'I;16'])
def test_pil_images_of_all_modes_are_taken(mode):
    grey = Image.fromarray(smooth(0)[..., 0])
    if mode == 'I;16':
        image = Image.fromarray(smooth(0)[..., 0].astype('u2') * 257)
    else:
        image = grey.convert('RGB').convert(mode) if mode in (
            'HSV', 'LA') else grey.convert(mode)
    assert image.mode == mode
    found = from_pil(image)
    assert found.shape == (100, 120, 3) and found.dtype == np.uint8
    if mode != '1':
        assert np.abs(found[..., 0].astype(int) - np.asarray(grey)).max() < 3


@pytest.mark.parametrize('image', [
    torch.zeros(3, 20, 30), 7, None, b'photo.jpg', dict(a=1), [[1, 2]],
], ids=lambda image: type(image).__name__)
def test_inputs_that_are_not_images_are_reported(predictors, image):
    with pytest.raises(TypeError, match='images are paths, arrays'):
        list(predictors['cls'](image))


def test_a_missing_file_is_reported(predictors):
    for image in ('nowhere.jpg', Path('nowhere.jpg')):
        with pytest.raises(FileNotFoundError, match='nowhere.jpg'):
            list(predictors['pose'](image))


def test_paths_of_a_list_are_matched_together(predictors, tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / '1.jpg'), smooth(0))
    predictor = predictors['pose']
    from hrformer_mm.apis.boxes import BoxTable
    old, predictor.boxes = predictor.boxes, BoxTable(
        {'1.jpg': [PERSON]}, .5, predictor.categories)
    try:
        with pytest.warns(UserWarning, match='no boxes are used'):
            found = list(predictor([tmp_path / 'a/1.jpg',
                                    tmp_path / 'b/1.jpg']))
    finally:
        predictor.boxes = old
    assert [len(people.scores) for people in found] == [0, 0]


def test_the_command_in_python_takes_one_path(saved, path, tmp_path):
    for i, inputs in enumerate([str(path), path, [path]]):
        outcome = predict(*map(Path, saved['cls']), inputs,
                          tmp_path / f'out{i}', device='cpu')
        assert outcome.frames == 1 and not outcome.failed
