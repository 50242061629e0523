# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Training curves from MMEngine's logs; several runs in one figure.

MMEngine's LoggerHook writes one JSON record per line to
``WORK_DIR/TIME/vis_data/scalars.json``; training records have an iteration.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.io import read_records
from .figures import new_figure

PLACES = ('*/vis_data/scalars.json', 'vis_data/scalars.json', 'scalars.json')
COUNTERS = {'iter', 'epoch', 'step', 'time', 'data_time', 'memory'}
METRICS = ('coco/AP', 'mIoU', 'accuracy/top1')
Points = list[tuple[int, float]]  # iterations and values


@dataclass(frozen=True)
class LoggedRun:
    """Logged values of a training, by key."""
    name: str
    points: dict[str, Points]


def find_logs(path: Path) -> list[Path]:
    """List the logs of a work dir by time, or a single log file.

    Raises:
        FileNotFoundError: If there are none.
    """
    if path.is_file():
        return [path]
    found = [log for place in PLACES for log in sorted(path.glob(place))]
    if not found:
        raise FileNotFoundError(f'{path} has no log; a work dir of training '
                                'has TIME/vis_data/scalars.json')
    return found


def collect(records: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    """Return the curves of one log, by key."""
    points: dict[str, Points] = {}
    append(points, records)
    return points


def append(points: dict[str, Points], records: Sequence[Mapping[str, Any]]):
    """Append a log to the curves of the earlier logs of a resumed run.

    An evaluation record has an epoch, or (without evaluations by epoch)
    nothing, so it is placed at the last iteration before it. That of a run
    that evaluates what it resumed is in the earlier log. The later log
    replaces repeated iterations.

    Args:
        points: Curves by key, changed in place.
        records: Records of the log in the order of writing.
    """
    first = next((r['iter'] for r in records if 'iter' in r), float('inf'))
    for key, earlier in points.items():
        points[key] = [p for p in earlier if p[0] < first]
    at = max((p[-1][0] for p in points.values() if p), default=0)
    for record in records:
        at = record.get('iter', at)
        for key, value in record.items():
            if key in COUNTERS or not isinstance(value, (int, float)):
                continue
            curve = points.setdefault(key, [])
            if curve and curve[-1][0] == at:
                curve.pop()
            curve.append((at, value))


def read_run(path: str, name: str | None = None) -> LoggedRun:
    """Read the logs of a run that may have been resumed.

    Args:
        path: Work dir, or path of a ``scalars.json``.
        name: Name of the run; by default that of the work dir.

    Raises:
        FileNotFoundError: If there is no log.
    """
    where = Path(path)
    points: dict[str, Points] = {}
    for log in find_logs(where):
        append(points, list(read_records(log)))
    if where.is_file() and where.parent.name == 'vis_data':
        where = where.parents[2]
    return LoggedRun(name or where.resolve().name, points)


def choose_keys(runs: Sequence[LoggedRun],
                keys: Sequence[str] | None = None) -> list[str]:
    """Return the requested keys; by default loss, learning rate and metrics.

    Raises:
        ValueError: If no run has one of the keys; lists the valid ones.
    """
    known = {key for run in runs for key in run.points}
    unknown = [key for key in keys or () if key not in known]
    if unknown or not known:
        raise ValueError(f'no run has logged {unknown or "anything"}; valid '
                         f'keys: {sorted(known)}')
    return list(keys or (k for k in ('loss', 'lr', *METRICS) if k in known))


def smoothed(points: Points, width: int) -> Points:
    """Return the moving averages over the last ``width`` points."""
    values = [value for _, value in points]
    means = (values[max(i + 1 - width, 0):i + 1] for i in range(len(values)))
    return [(at, sum(x) / len(x)) for (at, _), x in zip(points, means)]


def draw_key(axes, runs: Sequence[LoggedRun], key: str, smooth: int):
    """Plot the curves of all runs that have the key, in one panel."""
    values = [y for run in runs for _, y in run.points.get(key, ())]
    for color, run in enumerate(runs):
        points = run.points.get(key)
        if not points:
            continue
        # Evaluations are few: mark each, and annotate the last one.
        few = len(points) <= 50
        line, = axes.plot(
            *zip(*smoothed(points, 1 if few else smooth)),
            marker='o' if few else None, markersize=4, label=run.name,
            color=f'C{color}')
        if key not in ('loss', 'lr'):
            axes.annotate(f'{points[-1][1]:.3g}', points[-1], (-4, 8),
                          textcoords='offset points', ha='right',
                          color=line.get_color())  # yapf: disable
    axes.set(xlabel='iteration', xlim=(0, None))
    if not values or min(values) >= 0:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=.3)
    axes.spines[['top', 'right']].set_visible(False)


def draw_curves(runs: Sequence[LoggedRun], titles: Mapping[str, str],
                smooth: int = 1):
    """Create a figure with a panel for each key and all runs in each panel.

    Args:
        runs: Runs to draw.
        titles: Title of each panel, by key.
        smooth: Number of records to average for a point of a long curve.
    """
    figure = new_figure(4.5 * len(titles), 3.4)
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, (key, title) in zip(panels, titles.items()):
        draw_key(axes, runs, key, smooth)
        axes.set_title(title)
    if len(runs) > 1:
        panels[0].legend(frameon=False)
    return figure
