# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The paper's tables, with the values of our configs next to the printed ones.

Accuracy is from the paper where the column says so; our measurements have a
column of their own, which is empty if the entry has not been trained.
"""
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from .. import zoo
from ..core import ARCHS
from ..utils.markdown import markdown_table
from . import study
from .benchmark_table import benchmark_table, read_results
from .entries import Entry, Printed
from .flops import CONVENTIONS, Count, count

# Valid names in <!-- table: NAME -->: a table of the paper, the entries of
# HRFormer of a task, or (pose-data) those on datasets that the paper does not
# use. Also the .json file with the results of a benchmark.
MAIN_TABLE = dict(pose='Table 3', seg='Table 5', cls='Table 6')
NAMES = {**{t: t for t in zoo.TASKS},
         **{f'{t}-data': f'{t}, other datasets' for t in ('pose', 'seg')},
         **{t.lower().replace(' ', '-'): t for t in zoo.TABLES}}
HEADLINE = dict(
    pose=('AP', 'AR'),
    seg=('mIoU', 'mIoU (ms+flip)'),
    cls=('Top 1 Accuracy', 'Top 5 Accuracy'),
    det=('box AP', 'mask AP'))
# The headline metric of a task.
MAIN_METRIC = dict(pose='AP', seg='mIoU (ms+flip)', cls='Top 1 Accuracy',
                   det='box AP')  # yapf: disable
METHODS = {'retinanet': 'RetinaNet', 'fcos': 'FCOS',
           'faster-rcnn': 'Faster R-CNN', 'mask-rcnn': 'Mask R-CNN',
           'cascade-mask-rcnn': 'Cascade Mask R-CNN'}  # yapf: disable
DATA = {'coco': 'COCO', 'imagenet': 'ImageNet-1k', 'cityscapes': 'Cityscapes',
        'pascal-context': 'PASCAL-Context', 'coco-stuff': 'COCO-Stuff',
        'ade20k': 'ADE20K'}  # yapf: disable
LONG_TABLES_ONLY = ('PASCAL-Context', 'COCO-Stuff')
SHORT = {'Top 1 Accuracy': 'top-1', 'Top 5 Accuracy': 'top-5'}
BUILT: dict[str, nn.Module] = {}  # by config, as many entries share a model
COUNTED: dict[tuple, Count] = {}  # by model and shape
BLOCK = re.compile(r'(<!-- table: (\S+) -->\n).*?(<!-- end -->)', re.DOTALL)
# Table 2: modules, blocks, channels and heads of the four stages or branches.
PRINTED_ARCHS = {
    'tiny': ((1, 1, 3, 2), (2, ) * 4, (18, 36, 72, 144), (1, 2, 4, 8)),
    'small': ((1, 1, 4, 2), (2, ) * 4, (32, 64, 128, 256), (1, 2, 4, 8)),
    'base': ((1, 1, 4, 2), (2, ) * 4, (78, 156, 312, 624), (2, 4, 8, 16)),
}


def count_table(counted: Count) -> str:
    """Format billions of multiply-adds by stage and convention."""
    rows = [[stage, *(f'{values[name] / 1e9:.3f}' for name in CONVENTIONS)]
            for stage, values in counted.stages.items()]
    total = [f'{counted.total(name) / 1e9:.3f}' for name in CONVENTIONS]
    return markdown_table(['stage', *CONVENTIONS], [*rows, ['total', *total]])


def build_entry(entry: Entry) -> nn.Module:
    """Build a model on the meta device, once for entries that share it."""
    cfg = zoo.get_config(entry)
    key = str(cfg.model)
    if key not in BUILT:
        BUILT[key] = zoo.build_model(cfg)
    return BUILT[key]


def count_parameters(entry: Entry) -> int:
    return sum(p.numel() for p in build_entry(entry).parameters())


def count_entry(entry: Entry, shape: tuple[int, int] | None = None) -> Count:
    """Count the cost of an entry's model, once for each model and shape.

    Args:
        entry: Entry with a config.
        shape: Height and width; by default the one in the entry's name.
    """
    model = build_entry(entry)
    key = (id(model), shape or zoo.input_size(entry.name))
    if key not in COUNTED:
        COUNTED[key] = count(model, key[1])
    return COUNTED[key]


def like(value: float, printed: str, unit: str = '') -> str:
    """Format a number with as many decimals as the printed one, or one."""
    decimals = printed.rstrip('MG').partition('.')[2]
    places = len(decimals) if decimals.isdigit() else 1
    return f'{value:.{places}f}{unit}'


def metric_text(metrics: zoo.Metrics | str,
                names: Sequence[str] | None = None) -> str:
    """Format those metrics that are in ``names``; keep ``unknown`` as is."""
    if isinstance(metrics, str):
        return metrics
    return ', '.join(f'{SHORT.get(name, name)} {value}'
                     for name, value in metrics.items()
                     if names is None or name in names)


def data_of(entry: Entry) -> str:
    """Return the dataset of an entry, from its name if it has no config."""
    if entry.results:
        return entry.results[0].dataset
    names = [DATA[part] for part in entry.name.split('_') if part in DATA]
    return ''.join(names[:1]) + ' test-dev' * entry.name.endswith('_testdev')


def own_input(entry: Entry) -> str:
    """Return height x width in the name of an entry's config."""
    return '{}x{}'.format(*zoo.input_size(entry.name)) if entry.config else ''


def config_cell(entry: Entry, base: Path | None) -> str:
    """Format the name of an entry's config as a link relative to ``base``."""
    if not entry.config:
        return f'none: {entry.reason}'
    if base is None:
        return entry.name
    return f'[{entry.name}]({os.path.relpath(entry.path, base)})'


def cost_cells(entry: Entry, printed: Printed) -> dict[str, str]:
    """Return parameters and FLOPs, as counted and as printed."""
    cells = {
        'params (paper)': printed.parameters,
        'GFLOPs (paper)': printed.flops.removesuffix('G')
    }
    if entry.config:
        shape = zoo.input_size(f'_{printed.flops_at or entry.name}')
        counted = count_entry(entry, shape)
        # The paper has no detectors, and so no convention to count them.
        name = 'macs' if entry.task == 'det' else f'paper-{entry.task}'
        flops = counted.total(name) / 1e9
        cells['params'] = like(counted.parameters / 1e6, printed.parameters,
                               'M')
        cells['GFLOPs'] = like(flops, printed.flops)
        if name != 'macs':
            cells['GMACs'] = like(counted.total('macs') / 1e9, printed.flops)
    return cells


def accuracy_cells(entry: Entry, printed: Printed) -> dict[str, str]:
    """Return accuracies by source."""
    headline = HEADLINE[entry.task]
    if isinstance(printed.metrics, str):
        name = SHORT.get(headline[0], headline[0])
        cells = {f'{name} (paper)': printed.metrics}
    else:
        cells = {f'{SHORT.get(name, name)} (paper)': str(value)
                 for name, value in printed.metrics.items()}
    if entry.official:
        cells['official code'] = metric_text(entry.official.metrics, headline)
    cells['others'] = '; '.join(
        f'{other.by}: {metric_text(other.metrics, headline)}'
        for other in entry.third_party)
    cells['measured here'] = '; '.join(
        metric_text(result.metrics,
                    [n for n in headline if n in result.metrics] or None)
        for result in entry.results)
    return cells


def entry_cells(entry: Entry, printed: Printed,
                base: Path | None) -> dict[str, str]:
    """Return the cells of a line, by column."""
    return {
        'model': printed.row,
        'data': data_of(entry),
        'input': printed.input or printed.flops_at or own_input(entry),
        'config': config_cell(entry, base),
        **cost_cells(entry, printed),
        **accuracy_cells(entry, printed), 'note': printed.note
    }


def column_order(lines: Sequence[Mapping[str, str]]) -> list[str]:
    """List the columns that any line fills, in a fixed order."""
    first = ['model', 'data', 'input', 'config', 'params', 'params (paper)',
             'GFLOPs', 'GFLOPs (paper)', 'GMACs']
    last = ['official code', 'others', 'measured here', 'note']
    seen = dict.fromkeys(name for line in lines for name in line)
    metrics = [name for name in seen if name not in first + last]
    return [name for name in first + metrics + last
            if name == 'measured here' or any(line.get(name)
                                              for line in lines)]


def instances_table() -> str:
    """Format Table 2: our sizes, compared with the printed ones."""
    lines = []
    for name, printed in PRINTED_ARCHS.items():
        arch = ARCHS[name]
        ours = ((1, *arch.modules), (2, *[arch.blocks] * 3), arch.channels,
                arch.heads)
        same = 'as printed' if ours == printed else f'paper: {printed}'
        lines.append([f'HRFormer-{name[0].upper()}', *map(str, ours), same])
    return markdown_table(
        ['model', 'modules', 'blocks', 'channels', 'heads', 'paper'], lines)


def shorten(printed: Printed, task: str) -> Printed:
    """Drop notes, and all metrics except the headline metrics of a task."""
    metrics = printed.metrics
    if not isinstance(metrics, str):
        metrics = {k: v for k, v in metrics.items() if k in HEADLINE[task]}
    return replace(printed, metrics=metrics, note='')


def main_line(entry: Entry) -> Printed | None:
    """Return the paper's entry for an entry of HRFormer, or None.

    Entries that appear only in the README of the official code are included.
    """
    if not entry.name.startswith('hrformer_'):
        return None
    if entry.task == 'det':  # the paper has none
        if 'synthetic' in entry.name:
            return None
        size, method = entry.name.split('_')[1], entry.name.split('_')[-1]
        return Printed(f'{METHODS[method]}, HRFormer-{size.upper()}',
                       metrics={})
    table = MAIN_TABLE[entry.task]
    if table in entry.paper:
        return shorten(entry.paper[table], entry.task)
    if entry.official and 'Table 4' not in entry.paper:  # Table 4 is test-dev
        return Printed(f"HRFormer-{entry.name.split('_')[1].upper()}",
                       metrics={})
    return None


def other_data_line(entry: Entry) -> Printed | None:
    """Return the line of a model on a dataset that the paper does not use."""
    model, size, _, *change = entry.name.split('_')
    data = data_of(entry).removesuffix(' test-dev')
    if model != 'hrformer' or len(change) > 1 or (
            not data or data in DATA.values()):
        return None
    return Printed(f'HRFormer-{size.upper()}', metrics={})


def entries_of(name: str) -> list[tuple[Entry, Printed]]:
    """Return the entries of a table, with the paper's entry for each.

    Raises:
        ValueError: If the name is not in ``NAMES``.
    """
    if name not in NAMES:
        raise ValueError(f'table must be one of {list(NAMES)}, got {name!r}')
    task = name.removesuffix('-data')
    if task in zoo.TASKS:
        choose = main_line if name == task else other_data_line
        lines = [(entry, choose(entry))
                 for entry in zoo.list_entries(task=task)]
        return [(entry, line) for entry, line in lines if line]
    table = NAMES[name]
    return [(entry, entry.paper[table]) for entry in zoo.list_entries(table)]


def summary_table(base: Path | None) -> str:
    """Format the paper's main results of HRFormer for a README."""

    def best(metrics: zoo.Metrics | str, task: str) -> str:
        text = metric_text(metrics, [MAIN_METRIC[task]])
        return text.replace(' (ms+flip)', '')

    lines = []
    for task in MAIN_TABLE:
        for entry, printed in entries_of(task):
            if data_of(entry) in LONG_TABLES_ONLY:
                continue
            cells = cost_cells(entry, printed)
            link = '' if base is None else os.path.relpath(entry.path, base)
            official = entry.official.metrics if entry.official else ''
            if isinstance(printed.metrics, str) or not printed.metrics:
                continue  # unknown, or a result of the official code only
            lines.append([
                f'[{printed.row}]({link})' if link else entry.name,
                data_of(entry),
                printed.input or printed.flops_at or own_input(entry),
                cells.get('params', ''), cells.get('GFLOPs', ''),
                best(printed.metrics, task), best(official, task)
            ])
    return markdown_table(('config', 'data', 'input', 'params', 'GFLOPs',
                           'paper', 'official code'), lines)


def render(name: str, base: Path | None = None) -> str:
    """Render a table in Markdown.

    Args:
        name: One of ``NAMES``: ``'pose'``, ``'table-3'``, ``'appendix'``;
            ``'summary'``; ``'study'``, trainings on small real datasets, or
            ``'study-summary'``, its main metrics; ``'precisions'``, their
            accuracy and speed in OpenVINO; ``'cpu-summary'``, speeds and
            accuracies on a CPU; or the results of a benchmark, a
            file that ends in ``.json``.
        base: Folder that links to configs and file names are relative to; no
            links if None.
    """
    if name == 'summary':
        return summary_table(base)
    if name == 'study':
        return study.study_table(study.read_trials())
    if name == 'study-summary':
        return study.study_summary(study.read_trials())
    if name == 'precisions':
        return study.precision_table(study.read_trials(study.PRECISIONS))
    if name == 'cpu-summary':
        cases = read_results(zoo.root() / study.ON_CPU)['results']
        return study.cpu_summary(cases, study.read_trials(study.PRECISIONS))
    if name == 'table-2':
        return instances_table()
    if name.endswith('.json'):
        return benchmark_table((zoo.root() if base is None else base) / name)
    lines = [entry_cells(entry, printed, base)
             for entry, printed in entries_of(name)]
    if not lines:
        return 'No entries yet.\n'
    columns = column_order(lines)
    return markdown_table(columns, [[line.get(c, '') for c in columns]
                                    for line in lines])


def refresh(text: str, base: Path) -> str:
    """Render every table between its markers again.

    A table is between ``<!-- table: NAME -->`` and ``<!-- end -->``.
    """
    return BLOCK.sub(
        lambda m: f'{m[1]}\n{render(m[2], base)}\n{m[3]}', text)


def documents() -> list[Path]:
    """List the files that contain tables."""
    root = zoo.root()
    places = [root / 'README.md', *sorted((root / 'docs').glob('*.md')),
              *(root / 'configs' / task / 'README.md' for task in zoo.TASKS),
              *sorted((root / 'benchmarks').glob('*/README.md'))]
    return [path for path in places if path.exists()]


def table_rows(block: str) -> list[str]:
    """Return the lines of a table, independent of the column widths."""
    lines = [' '.join(line.split()) for line in block.splitlines()]
    return [line for line in lines if line.strip('|- ')]


def stale_documents() -> list[str]:
    """Describe the tables in documents that differ from their current data."""
    problems = []
    for path in documents():
        text = path.read_text(encoding='utf-8-sig')
        for old, new in zip(BLOCK.finditer(text),
                            BLOCK.finditer(refresh(text, path.parent))):
            if old[0] == new[0]:
                continue
            rows = [row for row in table_rows(new[0])
                    if row not in table_rows(old[0])]
            problems.append(
                f'{path.relative_to(zoo.root())}: table {old[2]} is stale; '
                f'now: {rows[0] if rows else "fewer rows"}')
    return problems


def drift() -> list[str]:
    """Describe contradictions between configs, metafiles and documents."""
    problems = []
    listed = {entry.config for entry in zoo.list_entries()}
    problems += [f'{name}: no metafile has it'
                 for name in sorted(set(zoo.config_files()) - listed)]
    for entry in zoo.list_entries():
        if not entry.config:
            continue
        if not entry.path.exists():
            problems.append(f'{entry.config}: is in a metafile but not there')
            continue
        counted = dict(parameters=(entry.parameters, count_parameters(entry)),
                       FLOPs=(entry.flops, count_entry(entry).total('macs')))
        problems += [
            f'{entry.name}: the metafile says {said} {name}, it has {found}'
            for name, (said, found) in counted.items() if said != found
        ]
    problems += study.contradictions(zoo.list_entries())
    return problems or stale_documents()
