# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Make the tables and figures of the study from its committed results.

Writes the ``Results`` of configs/*/metafile.yml, the tables in the documents
and figures/*.png: curves with a band over seeds, and accuracy against
parameters and multiply-adds.
"""
import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from hrformer_mm.utils.io import read_text, write_text
from hrformer_mm.visualization.figures import new_figure
from hrformer_mm.zoo import study, tables

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# An entry of a metafile: from its name to the next entry.
ENTRY = r'(?ms)^- Name: {name}(?=[ \n]).*?(?=^- Name: |^\S|\Z)'


def band(trained: study.Trained, metric: str
         ) -> list[tuple[float, float, float, float]]:
    """Return iteration, mean, minimum and maximum over seeds of a metric."""
    runs = [{at: study.in_percent(metric, value)
             for key, points in trial['curves'].items()
             if key.rpartition('/')[2] == metric for at, value in points}
            for trial in trained.trials]
    common = sorted(set(runs[0]).intersection(*runs[1:]))
    values = [[run[at] for run in runs] for at in common]
    return [(at, mean(v), min(v), max(v)) for at, v in zip(common, values)]


def draw_study(groups: Sequence[study.Trained], title: str):
    """Draw curves, and the result against parameters and multiply-adds."""
    metric = groups[0].main_metric
    figure = new_figure(13.5, 3.8)
    curves, *panels = figure.subplots(1, 3)
    for i, trained in enumerate(groups):
        network = study.network_of(trained)
        points = band(trained, metric)
        if points:
            at, middle, low, high = zip(*points)
            curves.plot(at, middle, color=f'C{i}', label=network)
            curves.fill_between(at, low, high, color=f'C{i}', alpha=.2)
        values = trained.values(metric)
        for panel, key, scale in zip(panels, ('parameters', 'macs'),
                                     (1e6, 1e9)):
            x = trained.first[key] / scale
            panel.plot([x] * len(values), values, 'o', color=f'C{i}',
                       alpha=.5)
            panel.annotate(network, (x, mean(values)), (5, 0),
                           textcoords='offset points', fontsize=7)
    curves.set(xlabel='iteration', title=f'{title}: validation')
    curves.legend(frameon=False, fontsize=7)
    for panel, label in zip(panels, ('parameters (millions)',
                                     'multiply-adds (billions)')):
        panel.set(xlabel=label, title=groups[0].first['split'])
        panel.margins(y=.15)
        panel.set_xlim(0, 1.35 * panel.dataLim.xmax)  # names fit beside
    for panel in (curves, *panels):
        panel.set_ylabel(study.TITLES[metric])
        panel.grid(alpha=.3)
        panel.spines[['top', 'right']].set_visible(False)
    return figure


def results_block(entry: Mapping[str, Any], trained: study.Trained) -> str:
    """Return the ``Results`` of a metafile entry, as YAML."""
    result, *_ = entry['Results']
    block = dict(Task=result['Task'], Dataset=result['Dataset'],
                 Metrics=trained.metrics, Measured=trained.measured)
    text = yaml.safe_dump(dict(Results=[block]), sort_keys=False, width=1000)
    return ''.join(f'  {line}\n' for line in text.splitlines())


def write_results(text: str, trained: study.Trained) -> str:
    """Replace the ``Results`` of a config in the text of a metafile.

    Raises:
        ValueError: If the metafile has no such entry with ``Results``.
    """
    found = re.search(ENTRY.format(name=re.escape(trained.name)), text)
    if found is None or '  Results:\n' not in found[0]:
        raise ValueError(f'{trained.name}: no entry with Results')
    entry, = yaml.safe_load(found[0])
    changed = re.sub(r'(?ms)^  Results:\n.*?(?=^  [^\s-]|\Z)',
                     lambda _: results_block(entry, trained), found[0])
    return text[:found.start()] + changed + text[found.end():]


def update_metafiles(groups: Sequence[study.Trained]):
    for trained in groups:
        task = trained.first['config'].partition('/')[0]
        path = ROOT / f'configs/{task}/metafile.yml'
        if task == '..':  # a template, which no metafile lists
            continue
        write_text(path, write_results(read_text(path), trained))


def main(argv: Sequence[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--figures', type=Path, default=HERE / 'figures',
                        help='folder for figures (default: %(default)s)')
    args = parser.parse_args(argv)
    groups = study.group(study.read_trials())
    if not groups:
        raise SystemExit('error: there are no results; run python -m '
                         'benchmarks.real_data.run first')
    update_metafiles(groups)
    tables.zoo.entries.read_metafile.cache_clear()
    for path in tables.documents():
        write_text(path, tables.refresh(read_text(path), path.parent))
    args.figures.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(t.first['study'] for t in groups):
        chosen = [t for t in groups if t.first['study'] == name]
        draw_study(chosen, name).savefig(args.figures / f'{name}.png')
        print(f'wrote {args.figures / name}.png')


if __name__ == '__main__':
    main()
