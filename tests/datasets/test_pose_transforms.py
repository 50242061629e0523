# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Scale and rotation of crops follow the released code's distribution."""
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

pytest.importorskip('mmpose', reason='pose needs MMPose')
N = 20_000
# Of a share of N draws: four standard deviations, at most.
SHARE = 4 * np.sqrt(.25 / N)


@pytest.fixture(scope='module')
def drawn():
    np.random.seed(0)
    build = TRANSFORMS.build(dict(type='hrformer_mm.RandomScaleRotation'))
    sample = dict(
        bbox_center=np.full((N, 2), 5, 'f4'),
        bbox_scale=np.full((N, 2), (100, 200), 'f4'))
    return build(sample)


def test_every_sample_is_scaled_by_a_clipped_normal(drawn):
    scale = drawn['bbox_scale'][:, 0] / 100
    assert scale.min() == pytest.approx(.5) and scale.max() == pytest.approx(
        1.5)
    # P(N(0, 1) < -1) of the draws lie on either cut.
    for cut in (.5, 1.5):
        assert np.isclose(scale, cut).mean() == pytest.approx(
            .1587, abs=SHARE)
    assert (scale < .75).mean() == pytest.approx(.3085, abs=SHARE)
    assert scale.mean() == pytest.approx(1, abs=.02)
    assert not np.isclose(scale, 1, atol=1e-7).all()


def test_both_sides_of_a_box_are_scaled_alike(drawn):
    np.testing.assert_allclose(
        drawn['bbox_scale'][:, 1], 2 * drawn['bbox_scale'][:, 0], rtol=1e-6)


def test_sixty_percent_of_samples_are_rotated_by_a_clipped_normal(drawn):
    angle = drawn['bbox_rotation']
    assert (angle != 0).mean() == pytest.approx(.6, abs=SHARE)
    assert abs(angle).max() == pytest.approx(80)
    turned = angle[angle != 0]
    # P(|N(0, 1)| < 1) and P(|N(0, 1)| > 2)
    assert (abs(turned) < 40).mean() == pytest.approx(.6827, abs=2 * SHARE)
    assert np.isclose(abs(turned), 80).mean() == pytest.approx(
        .0455, abs=SHARE)
    assert angle.mean() == pytest.approx(0, abs=1)


def test_scale_and_rotation_are_independent(drawn):
    turned = drawn['bbox_rotation'] != 0
    kinds = [drawn['bbox_scale'][part, 0] for part in (turned, ~turned)]
    assert kinds[0].mean() == pytest.approx(kinds[1].mean(), abs=2)


def test_boxes_are_not_shifted_and_keep_their_precision(drawn):
    assert (drawn['bbox_center'] == 5).all()
    assert drawn['bbox_scale'].dtype == drawn['bbox_rotation'].dtype == 'f4'


def test_half_bodies_are_sampled_like_the_released_code():
    """It keeps the upper half if N(0, 1) < 0.5, in 30 % of the samples."""
    from helpers import CONFIGS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    augment = Config.fromfile(CONFIGS / '_base_/pose/datasets/coco.py').augment
    with DefaultScope.overwrite_default_scope('mmpose'):
        half = TRANSFORMS.build(augment[1])
    np.random.seed(0)
    visible = np.ones((N, 17))
    chosen = half._random_select_half_body(visible, list(range(11)),
                                           list(range(11, 17)))
    kept = [len(ids) for ids in chosen if ids]
    assert len(kept) / N == pytest.approx(.3, abs=SHARE)
    assert np.mean(np.equal(kept, 11)) == pytest.approx(
        (np.random.randn(N) < .5).mean(), abs=3 * SHARE)
    # Nobody with eight visible points or fewer is cut.
    visible[:, 8:] = 0
    assert not any(
        half._random_select_half_body(visible, list(range(11)),
                                      list(range(11, 17))))
