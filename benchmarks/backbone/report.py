# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Save benchmark results, and render them as tables and plots."""
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hrformer_mm.utils.markdown import markdown_table
from hrformer_mm.version import __version__
from hrformer_mm.zoo.benchmark_table import mib, read_results

from .subjects import Case


def processor() -> str:
    """Return the name of the CPU as reported by the system."""
    try:
        for line in Path('/proc/cpuinfo').read_text('utf-8').splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the short name of the measured commit, if git knows it."""
    try:
        return subprocess.run(
            ['git', 'describe', '--always', '--dirty'],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_machine(device: torch.device) -> dict[str, Any]:
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    else:
        count = torch.get_num_threads()
        name = f'{processor()}, {count} thread{"s" * (count > 1)}'
    return dict(
        device=name,
        torch=torch.__version__,
        cuda=torch.version.cuda if device.type == 'cuda' else None,
        python=platform.python_version(),
        hrformer_mm=__version__,
        commit=commit())


def case_of(entry: Mapping) -> Case:
    case = dict(entry['case'])
    return Case(**{**case, 'size': tuple(case['size'])})


class Results:
    """JSON file of cases, rewritten atomically after each one.

    Args:
        path: Path of the file. Its results are kept if they are from the same
            machine and versions, and are not measured again.
        head: Fields common to all results, see :func:`describe_machine`.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]):
        self.path, self.head, self.entries = path, dict(head), []
        if path.is_file():
            old = read_results(path)
            same = all(old.get(k, v) == v for k, v in self.head.items()
                       if k in ('device', 'torch', 'commit', 'kernels'))
            if not same:
                raise ValueError(
                    f'{path} holds results of another machine, torch, commit '
                    'or kernels: move it or choose another --out')
            self.entries = old['results']

    def done(self, case: Case, names: Sequence[str]) -> bool:
        return any(
            case_of(e) == case and set(names) <= set(e['subjects'])
            for e in self.entries)

    def add(self, entry: Mapping[str, Any]):
        case = case_of(entry)
        self.entries = [e for e in self.entries if case_of(e) != case]
        self.entries.append(dict(entry))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix('.part')
        part.write_text(
            json.dumps(dict(self.head, results=self.entries), indent=1),
            encoding='utf-8')
        os.replace(part, self.path)


def table(entries: Sequence[Mapping]) -> str:
    """Render a table with one line for each network of each case."""
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        case = case_of(entry)
        for name, row in entry['subjects'].items():
            low, high = row['quartiles']
            spread = (high - low) / row['seconds']
            rows.append((str(case), name, f'{row["seconds"]:.4g}',
                         f'{100 * spread:.0f} %',
                         f'{row["images_per_second"]:.3g}',
                         f'{row["ratio"]:.2f}', mib(row['peak_bytes'])))
        bounds = entry['bounds']
        if bounds:
            for kind in ('products', 'traffic'):
                limit = bounds[f'{kind}_seconds']
                rows.append((str(case), f'limit: {kind}', f'{limit:.4g}', '',
                             f'{case.batch / limit:.3g}', '', ''))
    return markdown_table(('case', 'subject', 'seconds', 'spread',
                           'images/s', 'ratio', 'MiB'), rows)


def operation_table(found: Mapping[str, Mapping[str, float]],
                    length: int = 14) -> str:
    """Render the milliseconds of each operation by network, longest first."""
    longest: dict[str, float] = {}
    for times in found.values():
        for name, value in times.items():
            longest[name] = max(longest.get(name, 0.), value)
    shown = sorted(longest, key=longest.__getitem__, reverse=True)[:length]
    rows = [[name.removeprefix('aten::'),
             *(f'{1e3 * times.get(name, 0.):.1f}'
               for times in found.values())] for name in shown]
    sums = [sum(times.values()) for times in found.values()]
    rest = [total - sum(times.get(name, 0.) for name in shown)
            for total, times in zip(sums, found.values())]
    rows += [[label, *(f'{1e3 * value:.1f}' for value in values)]
             for label, values in (('others', rest), ('all', sums))]
    return markdown_table(['milliseconds in', *found], rows)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Fit the slope of a line through points on logarithmic axes."""
    xs, ys = zip(*((math.log(x), math.log(y)) for x, y in points))
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    return (sum((x - x0) * (y - y0) for x, y in zip(xs, ys)) /
            sum((x - x0)**2 for x in xs))


def curves(entries: Sequence[Mapping]
           ) -> dict[tuple[str, str], list[tuple[int, float, Any]]]:
    """Collect pixels, seconds and bytes of an image, by network."""
    found: dict[tuple[str, str], list] = {}
    for entry in entries:
        case = case_of(entry)
        label = f'{case.arch} {case.mode} {case.dtype}'
        if case.window != 7:
            label += f' w{case.window}'
        for name, row in entry['subjects'].items():
            memory = row['peak_bytes'] and row['peak_bytes'] / case.batch
            found.setdefault((label, name), []).append(
                (case.size[0] * case.size[1], row['seconds'] / case.batch,
                 memory))
    return {key: sorted(points, key=lambda p: p[0])
            for key, points in found.items()
            if len({p[0] for p in points}) > 1}  # yapf: disable


def growth(entries: Sequence[Mapping]) -> str:
    """Describe the growth of time with pixels, one line per network.

    Networks with fewer than three sizes are skipped.
    """
    lines = []
    for (label, name), points in curves(entries).items():
        if len(points) < 3:
            continue
        slope = exponent([p[:2] for p in points])
        lines.append(f'{label}, {name}: time of an image grows with its '
                     f'pixels to the power {slope:.2f}')
    return '\n'.join(lines)


def plot(entries: Sequence[Mapping], path: Path, title: str) -> bool:
    """Plot throughput and memory against size.

    Returns:
        ``False``, without a plot, if there is only one size.
    """
    lines = curves(entries)
    if not lines:
        return False
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, (speed, memory) = plt.subplots(
        1, 2, figsize=(11, 4.5), layout='constrained')
    for (label, name), points in lines.items():
        pixels, times, sizes = zip(*points)
        slope = exponent([p[:2] for p in points])
        text = f'{name}, {label} (power {slope:.2f})'
        speed.loglog(pixels, [1 / t for t in times], 'o-', label=text)
        if all(sizes):
            memory.loglog(
                pixels, [s / 2**20 for s in sizes], 'o-', label=text)
    speed.set(xlabel='pixels of an image', ylabel='images per second')
    memory.set(xlabel='pixels of an image',
               ylabel='MiB per image, without the weights')
    for axes in (speed, memory):
        axes.grid(alpha=.3, which='both')
    speed.legend(fontsize=8)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True
