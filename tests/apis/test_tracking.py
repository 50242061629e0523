# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""People of a clip keep their ids, and their keypoints can be smoothed."""
import cv2
import numpy as np
import pytest

from hrformer_mm.apis import inputs
from hrformer_mm.apis.tracking import OneEuroFilter, Tracker, pairwise_iou

CLIP = inputs.Source('clip.mp4', 'clip', 'video')
NONE = np.zeros((0, 4))


def frame(index, fps=25., source=CLIP):
    return inputs.Frame(source, np.zeros((9, 9, 3), 'u1'), index, fps)


def box(x, size=40.):
    return [x, 10., x + size, 10 + 2 * size]


def ids(tracker, index, boxes, **options):
    boxes = np.array(boxes).reshape(-1, 4)
    return tracker(frame(index, **options), boxes,
                   np.zeros((len(boxes), 5, 2)))[0].tolist()


def test_overlaps_of_boxes_are_areas_shared_by_areas_covered():
    ones = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], float)
    others = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [9, 9, 10, 10]], float)
    np.testing.assert_allclose(pairwise_iou(ones, others),
                               [[1 / 7, 1, 0], [0, 0, 0]])
    assert pairwise_iou(NONE, others).shape == (0, 3)


def test_people_keep_their_ids_in_whatever_order_their_boxes_come():
    tracker = Tracker()
    assert ids(tracker, 0, [box(0), box(200)]) == [1, 2]
    assert ids(tracker, 1, [box(205), box(4)]) == [2, 1]
    assert ids(tracker, 2, [box(100), box(8), box(210)]) == [3, 1, 2]
    assert ids(tracker, 3, []) == []
    assert ids(tracker, 4, [box(215), box(12)]) == [2, 1]


def test_two_people_at_one_place_are_two():
    tracker = Tracker()
    assert ids(tracker, 0, [box(0), box(6)]) == [1, 2]
    assert ids(tracker, 1, [box(6), box(0)]) == [2, 1]


def test_who_was_gone_for_more_than_a_second_is_somebody_new():
    tracker = Tracker()
    assert ids(tracker, 0, [box(0)]) == [1]
    assert ids(tracker, 25, [box(0)]) == [1]
    assert ids(tracker, 51, [box(0)]) == [2]
    assert ids(tracker, 52, [box(0)], fps=1.) == [2]


def test_every_clip_has_people_of_its_own():
    tracker, other = Tracker(), inputs.Source('b.mp4', 'b', 'video')
    assert ids(tracker, 0, [box(0)]) == [1]
    assert ids(tracker, 0, [box(0), box(9)], source=other) == [1, 2]


@pytest.mark.parametrize('size', [50., 500.])
def test_jitter_is_removed_and_motion_is_kept(size):
    """Points at rest shake by 1 % of the person; others cross it in 0.4 s."""
    random = np.random.default_rng(0)
    smoothed = OneEuroFilter()
    noise = random.normal(0, .01 * size, (100, 1, 2))
    rest = np.array([smoothed(x, size, 1 / 25) for x in noise])
    assert rest[20:].std() < .5 * noise.std()
    moving = OneEuroFilter()
    path = np.arange(100)[:, None, None] * np.array([.1 * size, 0])
    found = np.array([moving(x, size, 1 / 25) for x in path])
    assert np.abs(found - path)[20:].max() < .05 * size


def test_the_first_position_and_points_at_rest_are_kept():
    smoothed, points = OneEuroFilter(), np.arange(10.).reshape(5, 2)
    for _ in range(3):
        np.testing.assert_allclose(smoothed(points, 10, .04), points)


def test_people_are_smoothed_one_by_one():
    tracker = Tracker(smooth=True)
    boxes = np.array([box(0), box(200)])
    points = np.zeros((2, 5, 2))
    tracker(frame(0), boxes, points)
    _, found = tracker(frame(1), boxes[::-1], points + [[[9.]], [[0]]])
    assert (found[1] == 0).all() and (0 < found[0]).all()
    assert (found[0] < 9).all()


# Rotations by 0, 90, 180 and 270 degrees clockwise in the header of a track.
TURNS = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]


def write_turned(path, quarters):
    """Write a video whose metadata turn it, as those of phones do."""
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 12,
                            (64, 48))
    image = np.zeros((48, 64, 3), 'u1')
    image[:16, :16] = 255  # the upper left corner
    for _ in range(3):
        video.write(image)
    video.release()
    content = bytearray(path.read_bytes())
    start = content.index(b'tkhd') + 4 + 40
    a, b, c, d = (n * 65536 for n in TURNS[quarters])
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], '>i4').tobytes()
    content[start:start + 36] = matrix
    path.write_bytes(content)
    return image


@pytest.mark.parametrize('quarters', range(4))
def test_the_rotation_in_the_metadata_of_a_video_is_applied(quarters,
                                                            tmp_path):
    path = tmp_path / 'clip.mp4'
    image = write_turned(path, quarters)
    source = inputs.Source(str(path), 'clip', 'video')
    frames = list(inputs.clip_frames(source, None))
    wanted = np.rot90(image, -quarters)
    assert len(frames) == 3
    for found in frames:
        assert found.image.shape == wanted.shape
        assert np.abs(found.image.astype(int) - wanted).mean() < 10
