# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw keypoints, labels and class names on BGR images."""
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from typing import NamedTuple

import cv2
import numpy as np
from numpy import ndarray

FONT = cv2.FONT_HERSHEY_SIMPLEX
DARK, LIGHT = (0, 0, 0), (255, 255, 255)
TEXT = 15  # height of a line of text in pixels at scale 0.5
NARROW = 320  # images of a smaller width are enlarged to fit text


class Rectangle(NamedTuple):
    """Pixel rectangle; right and bottom are exclusive."""
    left: int
    top: int
    right: int
    bottom: int


def as_bgr8(image: ndarray) -> ndarray:
    """Convert an image of any depth or channels to a new [H, W, 3] uint8."""
    if image.dtype == np.uint16:
        image = image // 257
    image = image.clip(0, 255).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])


def draw_text(image: ndarray, text: str, center: tuple[int, int],
              scale: float) -> Rectangle:
    """Write text in white with a dark outline, inside the image.

    Args:
        image: Image to write on.
        text: Text to write.
        center: Center (x, y) of the text, moved if the image is too small.
        scale: Font scale.

    Returns:
        The rectangle of the text.
    """
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    x = min(max(center[0] - width // 2, 2), image.shape[1] - width - 2)
    y = min(max(center[1] + height // 2, height + 2), image.shape[0] - 2)
    # A thicker stroke would widen the text in some versions of OpenCV.
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        cv2.putText(image, text, (x + dx, y + dy), FONT, scale, DARK, 1,
                    cv2.LINE_AA)
    cv2.putText(image, text, (x, y), FONT, scale, LIGHT, 1, cv2.LINE_AA)
    return Rectangle(x, y - height, x + width, y)


def point_radii(points: ndarray, seen: ndarray, largest: float) -> ndarray:
    """Return radii that keep dense keypoints, such as of a face, apart.

    Args:
        points: [K, 2] in pixels.
        seen: [K] of bool: which points are drawn.
        largest: Radius of an isolated point.

    Returns:
        [K], at most 2/7 of the distance to the nearest point, so that points
        do not touch, and at least half a pixel.
    """
    radii = np.full(len(points), largest, float)
    where = np.flatnonzero(seen)
    if len(where) < 2:
        return radii
    apart = np.linalg.norm(points[where, None] - points[None, where], axis=2)
    nearest = np.sort(apart, axis=1)[:, 1]
    radii[where] = np.clip(nearest / 3.5, 0.5, largest)
    return radii


def draw_skeleton(image: ndarray, points: ndarray, seen: Sequence[bool],
                  links: Sequence, link_colors: Sequence,
                  point_colors: Sequence, scale: float):
    """Draw the keypoints of one object and the links between them.

    Args:
        image: Image to draw on.
        points: [K, 2] in pixels of the image.
        seen: K booleans: whether to draw the point and its links.
        links: Pairs of point indices.
        link_colors: Colour of each link, BGR.
        point_colors: Colour of each point, BGR.
        scale: Size of the object, which determines the line width together
            with the distances of the points.
    """
    largest = max(int(round(scale / 80)), 1) + 1
    points = np.asarray(points, float)
    radii = point_radii(points, np.asarray(seen, bool), largest)
    where = np.round(points * 16).astype(int)
    for (start, end), color in zip(links, link_colors):
        if seen[start] and seen[end]:
            width = max(int(min(radii[start], radii[end])), 1)
            cv2.line(image, where[start].tolist(), where[end].tolist(), color,
                     width, cv2.LINE_AA, 4)
    for point in np.flatnonzero(seen).tolist():
        at, radius = where[point].tolist(), int(round(16 * radii[point]))
        rim = min(16, radius // 3)  # one pixel, less around small points
        cv2.circle(image, at, radius + rim, LIGHT, -1, cv2.LINE_AA, 4)
        cv2.circle(image, at, radius, point_colors[point], -1, cv2.LINE_AA, 4)


def draw_box(image: ndarray, box: ndarray, label: str = ''):
    """Draw a box (x1, y1, x2, y2) as a thin line with a dark outline.

    Args:
        image: Image to draw on.
        box: Corners of the box.
        label: Text inside its upper left corner.
    """
    corners = np.round(box).astype(int).tolist()
    for color, width in ((DARK, 3), (LIGHT, 1)):
        cv2.rectangle(image, corners[:2], corners[2:], color, width)
    if label:
        draw_text(image, label, (corners[0] + 8, corners[1] + 10), 0.5)


def paint(labels: ndarray, palette: Sequence) -> ndarray:
    """Map labels [H, W] to BGR colours; labels without a colour are black.

    Args:
        labels: Label of each pixel.
        palette: RGB colour of each class.
    """
    colors = np.zeros((max(int(labels.max()) + 1, 256), 3), np.uint8)
    colors[:len(palette)] = np.asarray(palette, np.uint8)[:, ::-1]
    return colors[labels]


def name_regions(image: ndarray, labels: ndarray, names: Sequence[str]):
    """Write the name of each class where it is widest, if there is room.

    Names do not cover each other.
    """
    scale = max(min(labels.shape) / 1000, 0.35)
    taken: list[Rectangle] = []
    for label in np.unique(labels):
        if label >= len(names):
            continue
        (width, height), _ = cv2.getTextSize(names[label], FONT, scale, 1)
        mask = (labels == label).astype(np.uint8)
        for r in taken:  # centers that are too close to another name
            mask[max(r.top - height, 0):r.bottom + height,
                 max(r.left - width // 2 - 4, 0):r.right + width // 2 + 4] = 0
        depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        if height < 2 * depth[y, x] and width < 6 * depth[y, x]:
            taken.append(
                draw_text(image, names[label], (int(x), int(y)), scale))


def draw_regions(image: ndarray, labels: ndarray, palette: Sequence,
                 names: Sequence[str], opacity: float = 0.5) -> ndarray:
    """Blend an image with the colours of its labels and name them."""
    drawn = cv2.addWeighted(image, 1 - opacity, paint(labels, palette),
                            opacity, 0)
    name_regions(drawn, labels, names)
    return drawn


def draw_lines(image: ndarray, lines: Sequence[str]) -> ndarray:
    """Write lines of text below an image, enlarged if it is narrow."""
    zoom = NARROW / image.shape[1]
    if zoom > 1:
        image = cv2.resize(image, None, fx=zoom, fy=zoom,
                           interpolation=cv2.INTER_CUBIC)  # yapf: disable
    scale = image.shape[1] / 480
    step = round(2.4 * TEXT * scale)
    panel = np.full((step * len(lines) + step // 3, image.shape[1], 3), 30,
                    np.uint8)
    for i, line in enumerate(lines):
        cv2.putText(panel, line, (step // 3, step * (i + 1) - step // 5),
                    FONT, scale, LIGHT, max(round(scale), 1), cv2.LINE_AA)
    return np.vstack([image, panel])


GOLDEN = 0.618034  # multiples around a circle are far from each other


def make_palette(classes: int) -> list[list[int]]:
    """Return RGB colours that are easy to distinguish."""
    return [[
        round(255 * c) for c in hsv_to_rgb(i * GOLDEN % 1, 0.8, 1 - i % 3 / 4)
    ] for i in range(classes)]


def draw_instances(image: ndarray, boxes: Sequence, masks: Sequence,
                   colors: Sequence, texts: Sequence[str] = ()) -> ndarray:
    """Draw boxes, masks and a text above each box.

    Args:
        image: BGR image.
        boxes: Corners (x1, y1, x2, y2) of each instance.
        masks: Mask [H, W] of each instance; may be empty.
        colors: RGB colour of each instance.
        texts: Text of each instance.
    """
    drawn = image.copy()
    for mask, color in zip(masks, colors):
        drawn[mask] = drawn[mask] // 2 + np.uint8(color[::-1]) // 2
    scale = max(image.shape[0] / 1000, 0.35)
    for box in boxes:
        draw_box(drawn, box)
    for box, text in zip(boxes, texts):
        (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
        draw_text(drawn, text, (int(box[0]) + width // 2 + 2,
                                int(box[1]) + height // 2 + 3), scale)
    return drawn
