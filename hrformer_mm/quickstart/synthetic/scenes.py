# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw street scenes in the folder layout of Cityscapes.

They allow trying segmentation without a download, and are used by tests. A
scene is drawn from back to front: sky, buildings, ground, road, trees, then
vehicles, people and signs. Sizes are fractions of the image height; classes
are those of Cityscapes.
"""
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

(ROAD, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, TERRAIN, SKY, PERSON, CAR,
 BUS) = CLASSES = (0, 1, 2, 5, 7, 8, 9, 10, 11, 13, 15)
UNLABELLED = 255
Color = Sequence[float] | ndarray


class LabelCanvas:
    """Image and label map on which the same shapes are drawn.

    Args:
        height: Height in pixels.
        width: Width in pixels.
    """

    def __init__(self, height: int, width: int):
        self.image = np.zeros((height, width, 3), np.uint8)
        self.labels = np.full((height, width), UNLABELLED, np.uint8)
        self.scale = height

    def pixels(self, points: Sequence) -> ndarray:
        """Convert points [N, 2], as fractions of the height, to pixels."""
        return np.round(np.asarray(points) * self.scale).astype(np.int32)

    def polygon(self, points: Sequence, color: Color, label: int):
        corners = self.pixels(points)
        cv2.fillPoly(self.image, [corners], tuple(map(float, color)))
        cv2.fillPoly(self.labels, [corners], label)

    def box(self, x: float, y: float, w: float, h: float, color: Color,
            label: int):
        """Draw a rectangle with its upper left corner at x, y."""
        self.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], color,
                     label)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color,
                label: int):
        """Draw an ellipse centered at x, y."""
        center, axes = self.pixels([(x, y), (rx, ry)]).tolist()
        for target, value in ((self.image, tuple(map(float, color))),
                              (self.labels, label)):
            cv2.ellipse(target, center, axes, 0, 0, 360, value, -1)


def shade(rng: Generator, color: Color, spread: float = 18.) -> ndarray:
    """Return a random BGR color near a color."""
    return np.clip(np.asarray(color) + rng.uniform(-spread, spread, 3), 0, 255)


def draw_sky(rng: Generator, canvas: LabelCanvas, horizon: float,
             width: float):
    top = shade(rng, (215, 170, 120))
    for i in range(12):
        color = top + (np.array((235, 225, 215)) - top) * i / 12
        canvas.box(0, horizon * i / 12, width, horizon, color, SKY)


def draw_buildings(rng: Generator, canvas: LabelCanvas, horizon: float,
                   width: float):
    """Draw a row of houses with windows and gaps between them."""
    x = -rng.uniform(0, 0.2)
    while x < width:
        w, h = rng.uniform(0.2, 0.5), rng.uniform(0.15, 0.9 * horizon)
        color = shade(rng, rng.choice([(90, 105, 130), (120, 120, 125),
                                       (85, 120, 165), (150, 160, 165)]))
        canvas.box(x, horizon - h, w, h + 0.02, color, BUILDING)
        for wx in np.arange(x + 0.03, x + w - 0.05, 0.075):
            for wy in np.arange(horizon - h + 0.03, horizon - 0.06, 0.08):
                canvas.box(wx, wy, 0.04, 0.045, color * 0.6, BUILDING)
        x += w + rng.choice([0., 0., 0.15])


def draw_tree(rng: Generator, canvas: LabelCanvas, x: float, base: float):
    size = rng.uniform(0.1, 0.2)
    canvas.box(x - 0.012, base - size, 0.024, size, (40, 60, 80), VEGETATION)
    for _ in range(14):
        dx, dy = rng.normal(0, size / 3, 2)
        canvas.ellipse(x + dx, base - 1.5 * size + dy, size / 2, size / 2.4,
                       shade(rng, (45, 110, 60), 28), VEGETATION)


def draw_ground(rng: Generator, canvas: LabelCanvas, horizon: float,
                width: float):
    """Draw grass, and sidewalks and a road that meet on the horizon.

    Returns:
        x of the vanishing point.
    """
    middle = width / 2 + rng.uniform(-0.25, 0.25)
    canvas.box(0, horizon, width, 1, shade(rng, (60, 140, 130)), TERRAIN)
    for half, color, label in ((1.35, (165, 150, 160), SIDEWALK),
                               (0.95, (85, 82, 80), ROAD)):
        canvas.polygon([(middle - 0.03, horizon), (middle + 0.03, horizon),
                        (middle + half, 1.01), (middle - half, 1.01)],
                       shade(rng, color, 12), label)
    for t in np.arange(0.1, 1, 0.2):  # lane markings, longer when near
        y, w = horizon + (1 - horizon) * t**2, 0.03 * t
        canvas.box(middle - w / 2, y, w, 0.11 * t, (215, 215, 215), ROAD)
    return middle


def draw_car(rng: Generator, canvas: LabelCanvas, x: float, base: float,
             w: float):
    """Draw the side of a car of width ``w`` with its wheels at ``base``."""
    color, h = rng.integers(20, 235, 3), w / 2
    canvas.polygon([(x + .15 * w, base - .5 * h), (x + .28 * w, base - h),
                    (x + .72 * w, base - h), (x + .88 * w, base - .5 * h)],
                   color * 0.7, CAR)
    canvas.box(x + .3 * w, base - .9 * h, .4 * w, .35 * h, (90, 75, 60), CAR)
    canvas.box(x, base - .58 * h, w, .5 * h, color, CAR)
    for side in (.2, .8):
        canvas.ellipse(x + side * w, base - .1 * h, .1 * w, .14 * h,
                       (25, 25, 25), CAR)


def draw_bus(rng: Generator, canvas: LabelCanvas, x: float, base: float,
             w: float):
    """Draw the side of a bus of width ``w`` with its wheels at ``base``."""
    color, h = shade(rng, (60, 70, 200), 40), 0.75 * w
    canvas.box(x, base - h, w, .93 * h, color, BUS)
    for i in range(4):
        canvas.box(x + (.06 + .23 * i) * w, base - .85 * h, .18 * w, .3 * h,
                   (110, 90, 70), BUS)
    for side in (.22, .78):
        canvas.ellipse(x + side * w, base - .08 * h, .09 * w, .1 * h,
                       (25, 25, 25), BUS)


def draw_pedestrian(rng: Generator, canvas: LabelCanvas, x: float, base: float,
                    h: float):
    """Draw a person of height ``h`` who stands at ``base``."""
    skin, shirt, trousers = ((140, 170, 215), rng.integers(20, 235, 3),
                             rng.integers(20, 120, 3))
    for side in (-.09, .03):
        canvas.box(x + side * h, base - .45 * h, .07 * h, .45 * h, trousers,
                   PERSON)
    canvas.box(x - .13 * h, base - .84 * h, .27 * h, .42 * h, shirt, PERSON)
    canvas.ellipse(x, base - .91 * h, .075 * h, .095 * h, skin, PERSON)


def draw_sign(rng: Generator, canvas: LabelCanvas, x: float, base: float,
              h: float):
    """Draw a pole with a round sign."""
    canvas.box(x - .022 * h, base - h, .044 * h + .012, h, (120, 120, 120),
               POLE)
    canvas.ellipse(x, base - h, .13 * h, .13 * h,
                   shade(rng, rng.choice([(40, 40, 210), (200, 90, 30),
                                          (30, 200, 230)])), SIGN)


def draw_traffic(rng: Generator, canvas: LabelCanvas, horizon: float,
                 middle: float):
    """Draw vehicles on the road, people and signs beside it, far to near."""
    for t in np.sort(rng.uniform(0.3, 0.95, rng.integers(5, 10))):
        base, side = horizon + (1 - horizon) * t, rng.choice([-1, 1])
        kind = rng.choice(['car', 'car', 'bus', 'person', 'person', 'sign'])
        on_pavement = middle + side * t * rng.uniform(1., 1.25)
        in_lane = middle + t * (side * 0.45 - 0.3)
        if kind == 'car':
            draw_car(rng, canvas, in_lane, base, .55 * t)
        elif kind == 'bus':
            draw_bus(rng, canvas, in_lane, base, .6 * t)
        elif kind == 'person':
            draw_pedestrian(rng, canvas, on_pavement, base, .5 * t)
        else:
            draw_sign(rng, canvas, on_pavement, base, .65 * t)


def expose(rng: Generator, image: ndarray) -> ndarray:
    """Apply blur, noise and a random exposure, as a camera does."""
    image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 0.8))
    image = image * rng.uniform(0.75, 1.2) + rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def draw_scene(rng: Generator,
               size: tuple[int, int] = (112, 224)) -> tuple[ndarray, ndarray]:
    """Draw a scene and its labels.

    Args:
        rng: Random generator.
        size: Height and width.

    Returns:
        BGR image [H, W, 3] and labels [H, W], both of uint8.
    """
    canvas, width = LabelCanvas(*size), size[1] / size[0]
    horizon = rng.uniform(0.36, 0.5)
    draw_sky(rng, canvas, horizon, width)
    draw_buildings(rng, canvas, horizon, width)
    middle = draw_ground(rng, canvas, horizon, width)
    for _ in range(rng.integers(1, 5)):
        draw_tree(rng, canvas, middle + rng.choice([-1, 1]) *
                  rng.uniform(0.25, width / 2), horizon + 0.03)
    draw_traffic(rng, canvas, horizon, middle)
    # The hood of the ego vehicle has no label, as in Cityscapes.
    canvas.ellipse(width / 2, 1.02, 0.4 * width, 0.07, (50, 45, 45),
                   UNLABELLED)
    return expose(rng, canvas.image), canvas.labels


def write_image(path: Path, image: ndarray):
    """Write a PNG atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f'.{os.getpid()}_{path.name}')
    if not cv2.imwrite(str(fresh), image):
        raise OSError(f'could not write {path}')
    os.replace(fresh, path)


def make_scenes(root: Path, train: int, val: int, seed: int = 0):
    """Write scenes in the layout of Cityscapes, equal for equal arguments.

    Args:
        root: Folder for ``leftImg8bit`` and ``gtFine``.
        train: Number of training scenes.
        val: Number of held-out scenes.
        seed: Seed of the scenes.

    Raises:
        OSError: If a file cannot be written.
    """
    for part, (split, count) in enumerate((('train', train), ('val', val))):
        for i in range(count):
            image, labels = draw_scene(
                np.random.default_rng([seed, part, i]))
            name = f'{split}/drawn/drawn_{seed:06d}_{i:06d}_'
            write_image(root / f'leftImg8bit/{name}leftImg8bit.png', image)
            write_image(root / f'gtFine/{name}gtFine_labelTrainIds.png',
                        labels)
