# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw a person, things that hide it, and a background.

All lengths are in pixels; ``scale`` is a person's stature, ``base`` the offset
of the numbers of the person's parts.
"""
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike

from .bodies import (
    ANKLE,
    EAR,
    ELBOW,
    EYE,
    HIP,
    KNEE,
    NOSE,
    SHOULDER,
    SIDES,
    WRIST,
    Body,
    direction,
    of_side,
)

# Numbers of the parts of a person; of paired parts, the left one.
HEAD, TORSO, ARM, FOREARM, THIGH, SHIN, EARS = 1, 2, 3, 5, 7, 9, 11
PAIRED = (ARM, FOREARM, THIGH, SHIN, EARS)
SHIFT = 4  # fractional bits of cv2 coordinates: 1/16 pixel

SKIN = ((197, 219, 250), (150, 188, 234), (120, 160, 215), (85, 125, 180),
        (60, 90, 140), (40, 60, 95))  # BGR, as all colors here
HAIR = ((30, 30, 35), (35, 50, 80), (50, 85, 120), (90, 150, 200),
        (130, 130, 135), (40, 60, 150))


@dataclass
class Canvas:
    """Image and a map of the part that each pixel shows.

    Attributes:
        image: BGR image [H, W, 3] of uint8.
        parts: Numbers of parts [H, W] of uint8; 0 is the background.
    """
    image: ndarray
    parts: ndarray = field(init=False)

    def __post_init__(self):
        self.parts = np.zeros(self.image.shape[:2], np.uint8)

    def polygon(self, points: ndarray, color: ArrayLike, part: int | None):
        """Fill a convex polygon; without a part, only draw on the image."""
        points = np.round(points * 2**SHIFT).astype(np.int32)
        shade = np.asarray(color, float).tolist()
        cv2.fillConvexPoly(self.image, points, shade, cv2.LINE_AA, SHIFT)
        if part is not None:
            cv2.fillConvexPoly(self.parts, points, int(part), cv2.LINE_8,
                               SHIFT)

    def ellipse(self, middle: ndarray, axes: tuple[float, float],
                color: ArrayLike, part: int | None = None, roll: float = 0):
        t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        x, y = axes[0] * np.cos(t), axes[1] * np.sin(t)
        c, s = np.cos(roll), np.sin(roll)
        points = np.stack([c * x - s * y, s * x + c * y], 1)
        self.polygon(middle + points, color, part)

    def limb(self, start: ndarray, end: ndarray, widths: tuple[float, float],
             color: ndarray, part: int | None = None):
        """Fill two discs, with the widths as diameters, and their hull."""
        along = end - start
        across = np.array([-along[1], along[0]]) / (
            2 * max(np.hypot(*along), 1e-6))
        self.polygon(
            np.stack([
                start + across * widths[0], start - across * widths[0],
                end - across * widths[1], end + across * widths[1]
            ]), color, part)
        for middle, width in zip((start, end), widths):
            self.ellipse(middle, (width / 2, width / 2), color, part)


@dataclass
class Look:
    """Colors and clothes of a person."""
    skin: ndarray
    hair: ndarray
    shirt: ndarray
    trousers: ndarray
    shoes: ndarray
    sleeves: bool  # down to the wrists
    shorts: bool
    beard: bool


def sample_color(rng: Generator) -> ndarray:
    return rng.integers(15, 245, 3).astype(float)


def sample_look(rng: Generator) -> Look:
    tint = rng.uniform(.85, 1.1)
    return Look(
        np.clip(tint * np.array(SKIN[rng.integers(len(SKIN))]), 0, 255),
        np.array(HAIR[rng.integers(len(HAIR))]), sample_color(rng),
        sample_color(rng), sample_color(rng), *(rng.random(3) < (.5, .3, .2)))


def draw_leg(canvas: Canvas, body: Body, look: Look, side: int, base: int,
             scale: float):
    """Draw a shoe, a shin and a thigh; later parts cover earlier ones."""
    hip, knee, ankle = (body.at(i, side) for i in (HIP, KNEE, ANKLE))
    thick = scale * body.girth
    shin = look.skin if look.shorts else look.trousers
    part = base + of_side(SHIN, side)
    canvas.ellipse(ankle + np.array([side * .015, .02]) * scale,
                   (.028 * scale, .02 * scale), look.shoes, part)
    canvas.limb(knee, ankle, (.06 * thick, .042 * thick), shin, part)
    canvas.limb(hip, knee, (.095 * thick, .066 * thick), look.trousers,
                base + of_side(THIGH, side))


def draw_arm(canvas: Canvas, body: Body, look: Look, side: int, base: int,
             scale: float):
    """Draw an upper arm, a hand and a forearm in this order."""
    shoulder, elbow, wrist = (body.at(i, side)
                              for i in (SHOULDER, ELBOW, WRIST))
    thick = scale * body.girth
    along = (wrist - elbow) / max(np.hypot(*(wrist - elbow)), 1e-6)
    part = base + of_side(FOREARM, side)
    canvas.limb(shoulder, elbow, (.068 * thick, .05 * thick), look.shirt,
                base + of_side(ARM, side))
    canvas.ellipse(wrist + .02 * scale * along,
                   (.024 * scale, .024 * scale), look.skin, part)
    canvas.limb(elbow, wrist, (.05 * thick, .036 * thick),
                look.shirt if look.sleeves else look.skin, part)


def draw_torso(canvas: Canvas, body: Body, look: Look, base: int,
               scale: float):
    """Draw neck, hips, and a shirt from the shoulders down."""
    left, right = (body.at(SHOULDER, side) for side in SIDES)
    hips = [body.at(HIP, side) for side in SIDES]
    wide = .03 * body.girth * scale
    out = (left - right) / max(np.hypot(*(left - right)), 1e-6)
    middle = (left + right) / 2
    canvas.limb(middle, body.head, (.06 * scale, .055 * scale), look.skin,
                base + TORSO)
    canvas.limb(hips[0], hips[1], (.09 * scale, .09 * scale), look.trousers,
                base + TORSO)
    canvas.polygon(
        np.stack([
            left + out * wide * .3, right - out * wide * .3,
            hips[1] - out * wide, hips[0] + out * wide
        ]), look.shirt, base + TORSO)
    canvas.limb(left, right, (.05 * scale, .05 * scale), look.shirt,
                base + TORSO)


def draw_head(canvas: Canvas, body: Body, look: Look, base: int):
    """Draw the far ear, then hair and face, then the near ear."""
    r, dark = body.radius, look.skin * .6
    ears = {side: np.cos(body.turn + side * np.pi / 2) for side in SIDES}
    for over in (False, True):
        for side in SIDES:
            if (ears[side] > -.3) == over:
                canvas.ellipse(body.at(EAR, side), (.17 * r, .25 * r),
                               look.skin * .85, base + of_side(EARS, side))
        if not over:
            canvas.ellipse(body.head - (0, .12 * r), (.86 * r, r), look.hair,
                           base + HEAD)
            shift = np.array([.1 * np.sin(body.turn) * r, .12 * r])
            canvas.ellipse(body.head + shift, (.75 * r, .86 * r), look.skin,
                           base + HEAD)
    nose, eyes = body.at(NOSE), [body.at(EYE, side) for side in SIDES]
    if look.beard:
        canvas.ellipse(nose + (0, .5 * r), (.45 * r, .28 * r), look.hair)
    for eye in eyes:
        canvas.ellipse(eye, (.17 * r, .11 * r), (250, 250, 250))
        canvas.ellipse(eye, (.09 * r, .1 * r), (40, 30, 20))
    canvas.ellipse(nose - (0, .08 * r), (.09 * r, .16 * r), dark)
    canvas.ellipse(nose + (0, .36 * r), (.25 * r, .07 * r), (70, 60, 150))


def draw_pattern(canvas: Canvas, look: Look, base: int, rng: Generator,
                 scale: float):
    """Draw stripes or checks on shirt and upper arms."""
    part = canvas.parts - base  # wraps around below base, which is harmless
    y, x = np.nonzero((part >= TORSO) & (part < FOREARM))
    angle, wave = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(6, 16)
    on = np.sin(wave * (x * np.cos(angle) + y * np.sin(angle))) > .2
    if rng.random() < .4:
        on |= np.sin(wave * (y * np.cos(angle) - x * np.sin(angle))) > .6
    shirt = np.abs(canvas.image[y, x] - look.shirt).max(1) < 40
    canvas.image[y[on & shirt], x[on & shirt]] = sample_color(rng)


def draw_person(canvas: Canvas, body: Body, look: Look, base: int,
                scale: float, rng: Generator):
    """Draw a person from back to front; arms may be behind the torso."""
    behind = rng.random(2) < .3
    for side in rng.permutation(SIDES):
        draw_leg(canvas, body, look, side, base, scale)
    for over in (False, True):
        for side, hidden in zip(SIDES, behind):
            if hidden != over:
                draw_arm(canvas, body, look, side, base, scale)
        if not over:
            draw_torso(canvas, body, look, base, scale)
    draw_head(canvas, body, look, base)
    if rng.random() < .35:
        draw_pattern(canvas, look, base, rng, scale)


def draw_thing(canvas: Canvas, middle: ndarray, size: float, rng: Generator,
               part: int | None = None):
    """Draw a box, a disc or a bar of random color."""
    color, (a, b) = sample_color(rng), size * rng.uniform(.3, 1, 2)
    kind, angle = rng.integers(3), rng.uniform(0, 180)
    if kind == 0:
        u, v = a * direction(angle), b * direction(angle + 90)
        canvas.polygon(
            middle + np.stack([u + v, u - v, -u - v, v - u]), color, part)
    elif kind == 1:
        canvas.ellipse(middle, (a, b), color, part, np.radians(angle))
    else:
        along = 1.5 * size * direction(angle)
        canvas.limb(middle - along, middle + along, (.3 * a, .3 * b), color,
                    part)


def draw_background(rng: Generator, height: int, width: int) -> ndarray:
    """Return smooth, pale colors with clutter, [H, W, 3] of uint8."""
    coarse = rng.uniform(0, 255, (*rng.integers(2, 5, 2), 3))
    coarse += rng.uniform(.2, .9) * (coarse.mean(2, keepdims=True) - coarse)
    canvas = Canvas(
        cv2.resize(coarse.astype(np.uint8), (width, height),
                   interpolation=cv2.INTER_CUBIC))  # yapf: disable
    for _ in range(rng.integers(2, 12)):
        draw_thing(canvas, rng.uniform(0, 1, 2) * (width, height),
                   rng.uniform(.04, .22) * height, rng)
    return canvas.image
