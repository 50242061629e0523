# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Curves of training, and pictures laid out in a grid."""
from pathlib import Path
from typing import Dict, List, Sequence

import cv2
import numpy as np
from numpy import ndarray

LOSS, METRIC = '#4c72b0', '#c44e52'


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
    for axes, key, title, color in zip(
            figure.subplots(1, 2), ('loss', metric),
        ('training loss', f'{label}, held-out images'), (LOSS, METRIC)):
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


def fit(image: ndarray, height: int, width: int) -> ndarray:
    """Scale an image to fit and centre it on white."""
    scale = min(height / image.shape[0], width / image.shape[1])
    size = [max(round(scale * n), 1) for n in image.shape[1::-1]]
    image = cv2.resize(image, size, interpolation=(
        cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    tile = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    tile[top:top + size[1], left:left + size[0]] = image
    return tile


def grid(images: Sequence[ndarray], columns: int, height: int,
         width: int) -> ndarray:
    """Lay images out in rows of tiles with white between them."""
    tiles = [
        cv2.copyMakeBorder(fit(image, height, width), *[4] * 4,
                           cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for image in images
    ]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows: List[ndarray] = [
        np.hstack(tiles[i:i + columns]) for i in range(0, len(tiles), columns)
    ]
    return np.vstack(rows)
