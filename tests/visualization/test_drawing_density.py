# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Sizes of drawn keypoints follow how dense they are."""
import numpy as np
import pytest

from hrformer_mm.visualization.drawing import draw_skeleton, point_radii

COLOR = (0, 0, 255)


def body_with_face(spacing):
    """17 points far apart, and 8 x 8 with a spacing, in 600 x 600 pixels."""
    body = np.stack([np.linspace(50, 550, 17),
                     np.tile([300., 500.], 9)[:17]], 1)
    grid = np.stack(np.meshgrid(range(8), range(8)), 2).reshape(-1, 2)
    return np.concatenate([body, 60 + spacing * grid.astype(float)])


def drawn(points, links=()):
    image = np.full((600, 600, 3), 60, 'u1')
    draw_skeleton(image, points, [True] * len(points), links,
                  [(0, 255, 0)] * len(links), [COLOR] * len(points), 500)
    return image


@pytest.mark.parametrize('spacing', [4., 6., 8.])
def test_dense_points_do_not_cover_each_other(spacing):
    face = drawn(body_with_face(spacing))[58:60 + int(8 * spacing),
                                          58:60 + int(8 * spacing)]
    white = (face.min(2) > 230).mean()
    ground = (np.abs(face.astype(int) - 60).max(2) < 30).mean()
    assert white < .1 and ground > .15
    red = (face[..., 2] > face[..., 0] + 50).mean()
    assert red > .1  # points are there


def test_points_far_apart_have_the_size_of_the_object():
    points = body_with_face(4.)
    radii = point_radii(points, np.ones(len(points), bool), 7)
    assert (radii[:17] == 7).all() and (radii[17:] < 2).all()


def test_points_that_are_not_drawn_do_not_count():
    points = body_with_face(4.)
    seen = np.arange(len(points)) < 18  # one of the face
    assert point_radii(points, seen, 7)[17] == 7
    assert point_radii(points[:1], np.ones(1, bool), 7) == [7]


def test_equal_points_stay_visible():
    points = np.full((5, 2), 50.)
    assert (point_radii(points, np.ones(5, bool), 7) == .5).all()
    assert (drawn(points) != 60).any()


def test_links_between_dense_points_are_thin():
    points = np.array([[100., 100.], [106., 100.], [112., 100.],
                       [118., 100.]])
    image = drawn(points, [(0, 1), (1, 2), (2, 3)])
    rows = (image[:, 103] != 60).any(1).sum()
    assert rows <= 4
