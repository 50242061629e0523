# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Results of the study on small real datasets, averaged over seeds.

``python -m benchmarks.real_data.run`` writes one JSON file per training.
Tables, figures and the ``Results`` of metafiles are made of these files only.
"""
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from ..utils.markdown import markdown_table
from ..utils.paths import root

FOLDER = 'benchmarks/real_data/results'
PRECISIONS = 'benchmarks/real_data/precisions'
ON_CPU = 'benchmarks/backbone/results/runtimes_xeon_2cores.json'
IN_SUMMARY = ('camvid', 'lspet')  # studies whose accuracy is in the README
# Subjects of the benchmark and of the accuracies, and their names.
CPU_RUNTIMES = (('mmpose', '', "PyTorch, MMPose's class"),
                ('ours', 'torch', 'PyTorch'),
                ('openvino', 'openvino', 'OpenVINO'),
                ('openvino-bf16', 'openvino-bf16', 'OpenVINO, bf16'),
                ('openvino-int8', 'openvino-int8', 'OpenVINO, int8'))
RUNTIMES = {'torch': 'PyTorch', 'openvino': 'OpenVINO',
            'openvino-bf16': 'bf16', 'openvino-int8': 'int8'}  # yapf: disable
# Decimals and title of a metric, the first one of a study first.
TITLES = dict(tPCK='PCK@0.2 of the torso', PCK='PCK@0.2 of the box',
              mIoU='mIoU', mAcc='mean accuracy', aAcc='pixel accuracy',
              EPE='error in pixels')  # yapf: disable
LOWER_IS_BETTER = ('EPE', )
# Words of names, for readers.
FAMILIES = dict(hrformer='HRFormer', hrnet='HRNet')
VARIANTS = dict(nodw='without depth-wise conv', nodw_shift='shifted windows',
                people='from drawn people', template='template')


@dataclass(frozen=True)
class Trained:
    """Trainings of one config that differ in their seed only."""
    trials: tuple[Mapping[str, Any], ...]

    @property
    def first(self) -> Mapping[str, Any]:
        return self.trials[0]

    @property
    def name(self) -> str:
        return Path(self.first['config']).name

    @property
    def main_metric(self) -> str:
        return next(k for k in TITLES if k in self.first['metrics'])

    def values(self, metric: str) -> list[float]:
        return [in_percent(metric, t['metrics'][metric]) for t in self.trials]

    @property
    def metrics(self) -> dict[str, float]:
        """Return the means over seeds."""
        return {name: round(mean(self.values(name)), 2)
                for name in TITLES if name in self.first['metrics']}

    def text(self, metric: str) -> str:
        """Format a mean, with the lowest and highest of several seeds."""
        values = self.values(metric)
        text = f'{mean(values):.2f}'
        if len(values) == 1:
            return text
        return f'{text} ({min(values):.2f} to {max(values):.2f})'

    def short_text(self, metric: str) -> str:
        """Format a mean, with half the range of several seeds."""
        values = self.values(metric)
        half = (max(values) - min(values)) / 2
        return f'{mean(values):.2f}' + f' ± {half:.2f}' * (len(values) > 1)

    @property
    def measured(self) -> dict[str, str]:
        """Return the block ``Measured`` of a metafile."""
        machine = self.first['machine']
        seeds = ', '.join(str(t['seed']) for t in self.trials)
        which = 'mean of seeds' if len(self.trials) > 1 else 'seed'
        hours = mean(t['training_seconds'] for t in self.trials) / 3600
        return dict(
            Command=self.first['command'].replace(
                f"{self.name}_seed{self.first['seed']}", f"'{self.name}_seed*'"
            ) if len(self.trials) > 1 else self.first['command'],
            Commit=machine['commit'],
            # Results of older commits have this error.
            Machine=f"{machine['device']}, torch {machine['torch']}".replace(
                ' 1 threads', ' 1 thread'),
            Note=f"{self.first['split']}; {which} {seeds}; "
            f'{hours:.2f} hours per training')


def in_percent(metric: str, value: float) -> float:
    """Return a metric in percent; PCK is a fraction in MMPose."""
    return value * 100 if metric.endswith('PCK') else value


def read_trials(folder: str = FOLDER) -> list[Mapping[str, Any]]:
    """Read the results of all trainings, in the order of their names."""
    return [json.loads(path.read_text('utf-8'))
            for path in sorted((root() / folder).glob('*.json'))]


def group(trials: Sequence[Mapping[str, Any]]) -> list[Trained]:
    """Group trainings by config."""

    def key(trial):
        return trial['study'], trial['config']

    return [Trained(tuple(sorted(g, key=lambda t: t['seed'])))
            for _, g in groupby(sorted(trials, key=key), key)]


def budget_text(trained: Trained) -> str:
    amount, = trained.first['budget'].values()
    unit, = trained.first['budget']
    return (f"{amount} {unit.partition('_')[2]}, batch "
            f"{trained.first['batch_size']}")


def study_table(trials: Sequence[Mapping[str, Any]]) -> str:
    """Format all results, one line per config, the best of a study first."""
    lines = []
    groups = group(trials)
    for study in dict.fromkeys(t.first['study'] for t in groups):
        metric = next(t.main_metric for t in groups
                      if t.first['study'] == study)
        ranked = sorted((t for t in groups if t.first['study'] == study),
                        key=lambda t: mean(t.values(metric)),
                        reverse=metric not in LOWER_IS_BETTER)
        for t in ranked:
            height, width = t.first['input']
            lines.append([
                study, t.name, f'{height}x{width}', budget_text(t),
                f"{t.first['parameters'] / 1e6:.2f}M",
                f"{t.first['macs'] / 1e9:.3f}",
                f'{TITLES[metric]}: {t.text(metric)}'
            ])
    if not lines:
        return 'No results yet.\n'
    return markdown_table(('study', 'config', 'input', 'budget', 'params',
                           'GMACs', 'result'), lines)


def network_of(trained: Trained) -> str:
    """Return the network in a name, as ``HRFormer-T, shifted windows``."""
    study = trained.first['study']
    network, _, rest = trained.name.partition(f'_{study}_')
    family, _, size = network.partition('_')
    variant = rest.partition('_')[2]
    return ', '.join(filter(None, (
        f'{FAMILIES.get(family, family)}-{size.upper()}',
        VARIANTS.get(variant, variant))))


def study_summary(trials: Sequence[Mapping[str, Any]]) -> str:
    """Format the main metric, one line per network, one column per dataset.

    Without the templates for own data, which have another budget.
    """
    groups = [t for t in group(trials) if not t.name.endswith('_template')]
    studies = {t.first['study']: TITLES[t.main_metric] for t in groups}
    found = {(network_of(t), t.first['study']): t.short_text(t.main_metric)
             for t in groups}
    networks = sorted({network for network, _ in found})
    return markdown_table(
        ('network', *(f'{name}, {title}' for name, title in studies.items())),
        [[network, *(found.get((network, name), '') for name in studies)]
         for network in networks])


def precision_table(trials: Sequence[Mapping[str, Any]]) -> str:
    """Format the main metric and the speed of each network by precision.

    int8 that costs too much accuracy is a dash.
    """
    lines = []
    for trial in trials:
        subjects = trial['subjects']
        metric = next(k for k in TITLES if k in subjects['torch']['metrics'])
        height, width = trial['input']
        lines.append([
            Path(trial['config']).name, f'{height}x{width}', TITLES[metric],
            *(f"{in_percent(metric, s['metrics'][metric]):.2f}, "
              f"{s['ratio']:.2f}" if s else '-'
              for s in map(subjects.get, RUNTIMES))
        ])
    if not lines:
        return 'No results yet.\n'
    return markdown_table(('config', 'images', 'metric', *RUNTIMES.values()),
                          lines)


def cpu_summary(cases: Sequence[Mapping[str, Any]],
                trials: Sequence[Mapping[str, Any]]) -> str:
    """Format speeds relative to MMPose's class, and accuracies, by runtime.

    Args:
        cases: Results of the backbone benchmark.
        trials: Accuracies of trained networks by precision.
    """
    columns: dict[str, list[str]] = {}
    for entry in cases:
        case, found = entry['case'], entry['subjects']
        height, width = case['size']
        size = case['arch'][0].upper()
        columns[f"{size}, {case['batch']} of {height}x{width}"] = [
            f"{found[name]['ratio']:.2f}" if name in found else '-'
            for name, _, _ in CPU_RUNTIMES]
    for trial in trials:
        if trial['study'] not in IN_SUMMARY:
            continue
        found = trial['subjects']
        metric = next(k for k in TITLES if k in found['torch']['metrics'])
        columns[f"{network_of(Trained((trial, )))}, {trial['study']}"] = [
            '' if not name else '-' if name not in found else
            f"{in_percent(metric, found[name]['metrics'][metric]):.2f}"
            for _, name, _ in CPU_RUNTIMES]
    return markdown_table(('runtime', *columns), [
        [title, *values] for (_, _, title), *values in zip(
            CPU_RUNTIMES, *columns.values())])


def contradictions(entries: Sequence[Any]) -> list[str]:
    """Describe metafile entries that differ from the results of the study.

    Args:
        entries: Entries of the metafiles, :class:`hrformer_mm.zoo.Entry`.
    """
    found = {t.name: t for t in group(read_trials())}
    problems = []
    for entry in entries:
        trained = found.get(entry.name)
        if trained is None:
            continue
        listed = entry.results[0] if entry.results else None
        if listed is None or dict(listed.metrics) != trained.metrics:
            problems.append(
                f'{entry.name}: the metafile has the metrics '
                f'{dict(listed.metrics) if listed else {}}, the study '
                f'{trained.metrics}: run '
                'python -m benchmarks.real_data.report')
    return problems
