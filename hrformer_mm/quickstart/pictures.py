# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Curves of training, and pictures laid out in rows."""
from pathlib import Path
from typing import Dict, Sequence

import cv2
import numpy as np
from numpy import ndarray

LOSS, METRIC = '#4c72b0', '#c44e52'
GAP = 6  # between images


def plot_curves(records: Sequence[Dict], metric: str, label: str,
                path: Path):
    """Draw the loss and the metric over iterations, side by side.

    Args:
        records: As :func:`.progress.read_history` gives them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure((9, 3.4), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    curves = (('loss', 'training loss', LOSS),
              (metric, f'{label}, held-out images', METRIC))
    for axes, (key, title, color) in zip(figure.subplots(1, 2), curves):
        points = [(r['iter'], r[key]) for r in records if key in r]
        if points:
            axes.plot(*zip(*points), color=color,
                      marker='o' if key == metric else None)  # yapf: disable
        axes.set(title=title, xlabel='iteration', xlim=(0, None))
        axes.set_ylim(bottom=0)
        axes.grid(alpha=.3)
        axes.spines[['top', 'right']].set_visible(False)
    if points:
        axes.annotate(f'{points[-1][1]:.3g}', points[-1], (-4, 8),
                      textcoords='offset points', ha='right', color=METRIC)
    figure.savefig(path)


def stretch(image: ndarray, height: int, width: int) -> ndarray:
    """Resize, smoothly in both directions."""
    shrinks = height < image.shape[0]
    return cv2.resize(
        image, (width, height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def fill_row(images: Sequence[ndarray], width: int, height: int) -> ndarray:
    """Images beside each other, equally high, with white around.

    They fill the width, unless that made them higher than ``height``.
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
    """Lay images out in rows of at most that height, below a caption.

    Args:
        images: Each [H, W, 3] uint8.
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
