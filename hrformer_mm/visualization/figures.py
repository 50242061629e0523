# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Figures, and images arranged in rows."""
from collections.abc import Sequence

import cv2
import numpy as np
from numpy import ndarray

GAP = 6  # between images


def new_figure(width: float, height: float):
    """Create a matplotlib figure, size in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure((width, height), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def enlarge(image: ndarray,
            height: int,
            mode: int = cv2.INTER_CUBIC) -> ndarray:
    """Return the image, enlarged if it is lower than a height in pixels."""
    zoom = max(height / image.shape[0], 1)
    return cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=mode)


def stretch(image: ndarray, height: int, width: int) -> ndarray:
    """Resize an image, with area or cubic interpolation."""
    shrinks = height < image.shape[0]
    return cv2.resize(
        image, (width, height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def fill_row(images: Sequence[ndarray], width: int, height: int) -> ndarray:
    """Arrange images side by side at equal height on a white background.

    They fill the width, unless that makes them higher than ``height``.
    """
    aspects = [image.shape[1] / image.shape[0] for image in images]
    free = width - GAP * (len(images) + 1)
    height = min(round(free / sum(aspects)), height)
    row = np.full((height + GAP, width, 3), 255, np.uint8)
    left = GAP
    for image, aspect in zip(images, aspects):
        tile = stretch(image, height, int(aspect * height))
        row[:height, left:left + tile.shape[1]] = tile
        left += tile.shape[1] + GAP
    return row


def mosaic(images: Sequence[ndarray], caption: str, width: int = 1500,
           height: int = 330) -> ndarray:
    """Arrange images in rows of at most a given height, below a caption.

    Args:
        images: Images [H, W, 3] of uint8.
        caption: Text above the images.
        width: Width of the mosaic in pixels.
        height: Maximum height of a row in pixels.
    """
    title = np.full((36, width, 3), 255, np.uint8)
    cv2.putText(title, caption, (GAP, 25), cv2.FONT_HERSHEY_SIMPLEX, .6,
                (60, 60, 60), 1, cv2.LINE_AA)
    rows, row = [title], []
    for image in images:
        row.append(image)
        aspects = sum(i.shape[1] / i.shape[0] for i in row)
        if aspects * height >= width:
            rows.append(fill_row(row, width, height))
            row = []
    if row:
        rows.append(fill_row(row, width, height))
    return np.vstack(rows)
