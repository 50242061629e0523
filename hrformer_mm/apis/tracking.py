# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Follow people through the frames of a clip, and smooth their keypoints."""
from itertools import count

import numpy as np
from numpy import ndarray

from .inputs import Frame, Source

SAME = 0.3  # least overlap (IoU) of a person's boxes in successive frames
LOST = 1.  # seconds without a box after which a person is a new one
# One-Euro filter: cutoff in Hz of keypoints at rest, what it gains per unit
# of speed (sizes of the person in a second), and the cutoff of the speed.
CUTOFF, GAIN, SPEED_CUTOFF = 1., 4., 1.


def pairwise_iou(ones: ndarray, others: ndarray) -> ndarray:
    """Compute the intersection over union of all pairs of boxes, [N, M].

    Args:
        ones: [N, 4], x1, y1, x2, y2.
        others: [M, 4]
    """
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (ones, others)]
    union = areas[0][:, None] + areas[1] - shared
    return shared / np.maximum(union, 1e-9)


def weight_of(cutoff: ndarray, seconds: float) -> ndarray:
    """Return the weight of a new value in a low-pass filter."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * seconds))


class OneEuroFilter:
    """Smooth points that change with time; the faster, the less.

    Casiez et al., 1 Euro Filter, CHI 2012. Speeds are measured in sizes of the
    object, so that results do not depend on the resolution.
    """

    def __init__(self) -> None:
        self.points: ndarray | None = None
        self.speeds = np.zeros(0)

    def __call__(self, points: ndarray, size: float,
                 seconds: float) -> ndarray:
        """Return the smoothed points.

        Args:
            points: [K, 2] in pixels.
            size: Size of the object in pixels.
            seconds: Time since the last points.
        """
        if self.points is None:
            self.points, self.speeds = points, np.zeros_like(points)
            return points
        speeds = (points - self.points) / (seconds * max(size, 1e-9))
        weight = weight_of(np.array(SPEED_CUTOFF), seconds)
        self.speeds = weight * speeds + (1 - weight) * self.speeds
        speed = np.linalg.norm(self.speeds, axis=1, keepdims=True)
        weight = weight_of(CUTOFF + GAIN * speed, seconds)
        self.points = weight * points + (1 - weight) * self.points
        return self.points


class Track:
    """One person of a clip.

    Attributes:
        id: Number of the person, from 1.
        box: Last box, x1, y1, x2, y2.
        index: Index of the frame with this box.
    """

    def __init__(self, number: int):
        self.id, self.index = number, 0
        self.box = np.zeros(4)
        self.filter = OneEuroFilter()


class Tracker:
    """Give the people of a clip ids, and smooth their keypoints.

    People in a frame continue those of earlier frames so that their boxes
    overlap most; those that overlap little are new ones.

    Args:
        smooth: Smooth the keypoints with a :class:`OneEuroFilter`.
    """

    def __init__(self, smooth: bool = False):
        self.smooth = smooth
        self.source: Source | None = None
        self.tracks: list[Track] = []
        self.ids = count(1)

    def follow(self, frame: Frame, boxes: ndarray) -> list[Track]:
        """Return the track of each box of a frame, [N, 4]."""
        from scipy.optimize import linear_sum_assignment
        if frame.source != self.source:
            self.source, self.tracks, self.ids = frame.source, [], count(1)
        self.tracks = [
            track for track in self.tracks
            if frame.index - track.index <= max(LOST * frame.fps, 1)
        ]
        last = np.array([t.box for t in self.tracks]).reshape(-1, 4)
        overlaps = pairwise_iou(boxes, last)
        known = {
            i: self.tracks[j]
            for i, j in zip(*linear_sum_assignment(-overlaps))
            if overlaps[i, j] >= SAME
        }
        found = [known.get(i) or Track(next(self.ids))
                 for i in range(len(boxes))]
        self.tracks += [track for track in found if track not in self.tracks]
        return found

    def __call__(self, frame: Frame, boxes: ndarray, points: ndarray):
        """Return the ids of the people in a frame, and their keypoints.

        Args:
            frame: Frame of a clip; frames come in their order.
            boxes: [N, 4], x1, y1, x2, y2.
            points: [N, K, 2]

        Returns:
            The ids [N], and the keypoints [N, K, 2].
        """
        tracks = self.follow(frame, boxes)
        if self.smooth:
            points = points.copy()
        for i, (track, box) in enumerate(zip(tracks, boxes)):
            seconds = max(frame.index - track.index, 1) / frame.fps
            track.box, track.index = box, frame.index
            if self.smooth:
                size = np.sqrt((box[2:] - box[:2]).prod())
                points[i] = track.filter(points[i], size, seconds)
        return np.array([track.id for track in tracks], int), points
