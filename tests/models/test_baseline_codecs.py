# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Targets and decoding of TransPose, TokenPose and PRTR."""
import numpy as np
import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope

pytest.importorskip('mmpose', reason='codecs are of MMPose')
from mmpose.registry import KEYPOINT_CODECS  # noqa: E402

from hrformer_mm.deploy.postprocess import keypoints_of  # noqa: E402
from hrformer_mm.models.codecs import (  # noqa: E402
    UnbiasedUDPHeatmap,
    UncroppedRegressionLabel,
)

CONFIGS_UDP = ('transpose_h-a6_coco_256x192', 'tokenpose_l-d24_coco_256x192')


def official_maps(places, size, sigma):
    """Gaussians with their centre at places [K, 2], over whole maps."""
    x, y = np.arange(size[0]), np.arange(size[1])[:, None]
    return np.stack([
        np.exp(-((x - u)**2 + (y - v)**2) / (2 * sigma**2)) for u, v in places
    ]).astype('f4')


@pytest.mark.parametrize('name', CONFIGS_UDP)
def test_official_heatmaps_decode_to_their_keypoint(name):
    """On the way from the image to the map and back, in shares of the box."""
    cfg = Config.fromfile(CONFIGS / f'pose/{name}.py')
    cfg_codec = cfg.model.head.decoder
    steps = cfg.test_dataloader.dataset.pipeline[2:-1]
    with DefaultScope.overwrite_default_scope('mmpose'):
        codec = KEYPOINT_CODECS.build(cfg_codec)
        results = dict(
            img=np.zeros((400, 300, 3), 'u1'),
            bbox_center=np.float32([[140, 190]]),
            bbox_scale=np.float32([[180, 240]]))
        for step in steps:
            results = TRANSFORMS.build(step)(results)
    center, scale = np.array([140., 190.]), np.array([180., 240.])
    rng = np.random.default_rng(0)
    points = center + (rng.uniform(.15, .85, (40, 2)) - .5) * scale
    size = np.array(codec.heatmap_size)
    places = (points - center + scale / 2) * (size - 1) / scale
    found, scores = codec.decode(official_maps(places, size, codec.sigma))
    # As TopdownPoseEstimator brings them back to the image.
    found = found / results['input_size'] * results['input_scale']
    found += results['input_center'] - results['input_scale'] / 2
    error = np.linalg.norm(found[0] - points, axis=-1) / scale[1]
    assert error.max() < 5e-4
    assert scores.min() > .8
    assert cfg.model.test_cfg.shift_heatmap is False
    assert cfg.model.test_cfg.flip_test is True


@pytest.mark.parametrize('name', CONFIGS_UDP)
def test_augmentation_has_the_ranges_of_the_authors(name):
    cfg = Config.fromfile(CONFIGS / f'pose/{name}.py')
    steps = cfg.train_dataloader.dataset.pipeline
    found, = (s for s in steps if s.type.endswith('RandomScaleRotation'))
    assert (found.scale_factor, found.rotate_factor) == (0.35, 45.)


def test_targets_have_an_unrounded_center_and_cover_the_map():
    codec = UnbiasedUDPHeatmap((192, 256), (48, 64), sigma=2)
    points = np.array([[[10.3, 200.7], [150., 3.], [-40., 9.], [60., 60.]]])
    seen = np.array([[1., 1., 1., 0.]], 'f4')
    target = codec.encode(points, seen)
    places = points[0] * [47 / 191, 63 / 255]
    expected = official_maps(places, (48, 64), 2)
    expected[2:] = 0  # more than three sigmas outside, and not labelled
    np.testing.assert_allclose(target['heatmaps'], expected, atol=1e-6)
    assert target['keypoint_weights'].tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize('place, weight', [
    (-6.9, 1), (-7.5, 1), (-8.1, 0), (53.9, 1), (54.1, 0)])  # yapf: disable
def test_targets_near_the_border_keep_their_weight_as_in_the_authors_code(
        place, weight):
    codec = UnbiasedUDPHeatmap((192, 256), (48, 64), sigma=2)
    point = np.array([[[place * 191 / 47, 100.]]])
    assert codec.encode(point)['keypoint_weights'] == weight


def test_the_exported_decoder_equals_the_codec():
    codec = UnbiasedUDPHeatmap((96, 128), (24, 32), sigma=2)
    rng = np.random.default_rng(0)
    maps = official_maps(rng.uniform(3, 20, (17, 2)), (24, 32), 2)
    points, scores = keypoints_of(codec)(torch.from_numpy(maps)[None], None)
    wanted, wanted_scores = codec.decode(maps)
    np.testing.assert_allclose(points, wanted, atol=1e-3)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)


def test_targets_of_prtr_outside_the_crop_keep_their_weight():
    codec = UncroppedRegressionLabel(input_size=(200, 100))
    points = np.array([[[50., 50.], [250., -10.], [70., 70.]]])
    target = codec.encode(points, np.array([[1., 1., 0.]]))
    np.testing.assert_allclose(target['keypoint_labels'],
                               [[[.25, .5], [1.25, -.1], [0, 0]]], atol=1e-6)
    assert target['keypoint_weights'].tolist() == [[1, 1, 0]]


def test_prtr_trains_on_these_targets_without_half_bodies():
    cfg = Config.fromfile(CONFIGS / 'pose/prtr_w32_coco_384x288.py')
    steps = {s.type.rpartition('.')[2]: s
             for s in cfg.train_dataloader.dataset.pipeline}
    assert 'RandomHalfBody' not in steps
    assert steps['RandomScaleRotation'].scale_factor == 0.3
    with DefaultScope.overwrite_default_scope('mmpose'):
        encoder = KEYPOINT_CODECS.build(steps['GenerateTarget'].encoder)
    assert isinstance(encoder, UncroppedRegressionLabel)
