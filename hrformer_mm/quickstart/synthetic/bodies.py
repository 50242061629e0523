# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Sample bodies of random proportions in random poses, as keypoints.

They roughly face the viewer. Coordinates are in units of the stature, with the
origin between the hips, x to the right in the image and y down. ``side`` is +1
for a person's left, which is to the right in the image, and -1 for the right.
"""
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray
from numpy.random import Generator

KEYPOINTS = ('nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear',
             'left_shoulder', 'right_shoulder', 'left_elbow', 'right_elbow',
             'left_wrist', 'right_wrist', 'left_hip', 'right_hip', 'left_knee',
             'right_knee', 'left_ankle', 'right_ankle')
SKELETON = ((16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12),
            (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11), (2, 3), (1, 2),
            (1, 3), (2, 4), (3, 5), (4, 6), (5, 7))  # 1-based, as in COCO
# Indices on the left side; the right one is the next. The nose has no side.
NOSE, EYE, EAR, SHOULDER, ELBOW, WRIST, HIP, KNEE, ANKLE = (
    0, 1, 3, 5, 7, 9, 11, 13, 15)
SIDES = (1, -1)


def of_side(index: int, side: int) -> int:
    """Return the index of a keypoint or part on a side, from the left one."""
    return index + (side < 0)


def direction(angle: float, side: int = 1) -> ndarray:
    """Return a unit vector; 0 degrees is down, 90 outwards."""
    return np.array(
        [side * np.sin(np.radians(angle)),
         np.cos(np.radians(angle))])


@dataclass
class Body:
    """Posed body.

    Attributes:
        joints: Coordinates [17, 2] in the order of ``KEYPOINTS``.
        head: Center of the head.
        radius: Half the height of the head.
        turn: Rotation of the head to the image's right, in radians.
        girth: Factor of the thickness of limbs.
    """
    joints: ndarray
    head: ndarray
    radius: float
    turn: float
    girth: float

    def at(self, index: int, side: int = 1) -> ndarray:
        return self.joints[of_side(index, side)]


def sample_arm(rng: Generator) -> tuple[float, float]:
    """Sample the angles of upper arm and forearm in degrees."""
    pose = rng.choice(4, p=(.35, .15, .2, .3))
    if pose == 0:  # hanging
        upper = rng.uniform(0, 25)
        return upper, upper + rng.uniform(-25, 10)
    if pose == 1:  # hand on the hip
        upper = rng.uniform(30, 60)
        return upper, upper - rng.uniform(70, 115)
    if pose == 2:  # up
        upper = rng.uniform(95, 165)
        return upper, upper + rng.uniform(-20, 80)
    upper = rng.uniform(10, 110)
    return upper, upper + rng.uniform(-110, 90)


def sample_leg(rng: Generator) -> tuple[float, float]:
    """Sample the angles of thigh and shin in degrees."""
    thigh = rng.uniform(-4, 22) if rng.random() < .8 else rng.uniform(15, 65)
    return thigh, thigh - rng.uniform(-6, 18 + .6 * thigh)


def pose_limb(joints: ndarray, chain: tuple[int, int, int], side: int,
              angles: Iterable[float], lengths: Iterable[float]):
    """Set the second and third joint of an arm or leg from its first."""
    for i, angle, length in zip(range(2), angles, lengths):
        start, end = (of_side(chain[i + j], side) for j in range(2))
        joints[end] = joints[start] + length * direction(angle, side)


def pose_face(joints: ndarray, head: ndarray, radius: float, turn: float,
              nod: float):
    """Set nose, eyes and ears on a head that turns around its axis."""
    joints[NOSE] = head + radius * np.array([.85 * np.sin(turn), .15 + nod])
    for side in SIDES:
        eye, ear = turn + side * .6, turn + side * np.pi / 2
        joints[of_side(EYE, side)] = head + radius * np.array(
            [.75 * np.sin(eye), -.15 + nod])
        joints[of_side(EAR, side)] = head + radius * np.array(
            [.85 * np.sin(ear), .05 - nod / 2])


def sample_body(rng: Generator) -> Body:
    """Sample a body of random proportions in a random pose."""
    joints = np.zeros((17, 2))
    yaw = rng.uniform(-.6, .6)  # radians; narrows the body
    lean = rng.normal(0, 7)
    spine = -direction(lean)
    neck = rng.uniform(.27, .32) * spine
    shoulder, hip = rng.uniform(.1, .135), rng.uniform(.06, .085)
    for side in SIDES:
        across = side * np.cos(yaw) * np.array([-spine[1], spine[0]])
        joints[of_side(SHOULDER, side)] = neck + across * shoulder
        joints[of_side(HIP, side)] = across * hip
    arm = rng.uniform(.15, .18) * np.array([1, rng.uniform(.85, 1)])
    leg = rng.uniform(.21, .25) * np.array([1, rng.uniform(.92, 1.05)])
    for side in SIDES:
        pose_limb(joints, (SHOULDER, ELBOW, WRIST), side, sample_arm(rng),
                  arm * rng.uniform(.7, 1, 2))  # foreshortening
        sits = rng.uniform(.4, .8) if rng.random() < .12 else 1
        pose_limb(joints, (HIP, KNEE, ANKLE), side, sample_leg(rng),
                  leg * (sits, rng.uniform(.9, 1)))
    radius = rng.uniform(.085, .115)
    turn = np.clip(yaw + rng.normal(0, .3), -.9, .9)
    head = neck + (radius + rng.uniform(.02, .04)) * -direction(
        lean + rng.normal(0, 6))
    pose_face(joints, head, radius, turn, rng.uniform(-.12, .12))
    return Body(joints, head, radius, turn, rng.uniform(.95, 1.4))


def place_body(body: Body, scale: float, roll: float,
               origin: ndarray) -> Body:
    """Convert a body to pixels: stature ``scale``, rotated by ``roll``."""
    c, s = scale * np.cos(roll), scale * np.sin(roll)
    turn = np.array([[c, s], [-s, c]])
    return replace(
        body,
        joints=body.joints @ turn + origin,
        head=body.head @ turn + origin,
        radius=body.radius * scale)
