# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The paper's tables, with what our configs have now beside what is printed.

Accuracy is the paper's where a column says so; what we measured stands in a
column of its own, empty where nobody trained the row.
"""
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from torch import nn

from .. import zoo
from ..core import ARCHS
from ..utils.markdown import markdown_table
from .flops import CONVENTIONS, Count, count
from .rows import Printed, Row

# Names that may stand in <!-- table: NAME -->: a table of the paper, or the
# rows of HRFormer of one task. So may a benchmark's results, as a .json file.
MAIN_TABLE = dict(pose='Table 3', seg='Table 5', cls='Table 6')
NAMES = {**{t: t for t in zoo.TASKS},
         **{t.lower().replace(' ', '-'): t for t in zoo.TABLES}}
HEADLINE = dict(
    pose=('AP', 'AR'),
    seg=('mIoU', 'mIoU (ms+flip)'),
    cls=('Top 1 Accuracy', 'Top 5 Accuracy'))
# The metric of a task in one number.
MAIN_METRIC = dict(pose='AP', seg='mIoU (ms+flip)', cls='Top 1 Accuracy')
DATA = {'coco': 'COCO', 'imagenet': 'ImageNet-1k', 'cityscapes': 'Cityscapes',
        'pascal-context': 'PASCAL-Context', 'coco-stuff': 'COCO-Stuff',
        'ade20k': 'ADE20K'}  # yapf: disable
SHORT = {'Top 1 Accuracy': 'top-1', 'Top 5 Accuracy': 'top-5'}
BUILT: Dict[str, nn.Module] = {}  # by config: many rows have the same model
COUNTED: Dict[tuple, Count] = {}  # by model and shape
BLOCK = re.compile(r'(<!-- table: (\S+) -->\n).*?(<!-- end -->)', re.DOTALL)
# Table 2: modules, blocks, channels and heads of the four stages or branches.
PRINTED_ARCHS = {
    'tiny': ((1, 1, 3, 2), (2, ) * 4, (18, 36, 72, 144), (1, 2, 4, 8)),
    'small': ((1, 1, 4, 2), (2, ) * 4, (32, 64, 128, 256), (1, 2, 4, 8)),
    'base': ((1, 1, 4, 2), (2, ) * 4, (78, 156, 312, 624), (2, 4, 8, 16)),
}


def count_table(counted: Count) -> str:
    """Billions of multiply-adds by stage and convention."""
    rows = [[stage, *(f'{values[name] / 1e9:.3f}' for name in CONVENTIONS)]
            for stage, values in counted.stages.items()]
    total = [f'{counted.total(name) / 1e9:.3f}' for name in CONVENTIONS]
    return markdown_table(['stage', *CONVENTIONS], [*rows, ['total', *total]])


def build_row(row: Row) -> nn.Module:
    """A row's model on the meta device; rows that share one build it once."""
    cfg = zoo.get_config(row)
    key = str(cfg.model)
    if key not in BUILT:
        BUILT[key] = zoo.build_model(cfg)
    return BUILT[key]


def parameters(row: Row) -> int:
    return sum(p.numel() for p in build_row(row).parameters())


def count_row(row: Row, shape: Optional[Tuple[int, int]] = None) -> Count:
    """Count what a row's model costs, once for each model and shape.

    Args:
        row: One with a config.
        shape: Height and width; by default the one in the row's name.
    """
    model = build_row(row)
    key = (id(model), shape or zoo.input_size(row.name))
    if key not in COUNTED:
        COUNTED[key] = count(model, key[1])
    return COUNTED[key]


def shape_of(text: str) -> Optional[Tuple[int, int]]:
    """``'1024x2048'`` as numbers, none if empty."""
    if not text:
        return None
    height, width = map(int, text.split('x'))
    return height, width


def like(value: float, printed: str, unit: str = '') -> str:
    """A number with as many decimals as it is printed with, else one."""
    decimals = printed.rstrip('MG').partition('.')[2]
    places = len(decimals) if decimals.isdigit() else 1
    return f'{value:.{places}f}{unit}'


def metric_text(metrics: Union[zoo.Metrics, str],
                names: Optional[Sequence[str]] = None) -> str:
    """Metrics in one line, those of ``names`` only; ``unknown`` stays so."""
    if isinstance(metrics, str):
        return metrics
    return ', '.join(f'{SHORT.get(name, name)} {value}'
                     for name, value in metrics.items()
                     if names is None or name in names)


def data_of(row: Row) -> str:
    """Dataset of a row; the name of one without a config says it."""
    if row.results:
        return row.results[0].dataset
    names = [DATA[part] for part in row.name.split('_') if part in DATA]
    return ''.join(names[:1]) + ' test-dev' * row.name.endswith('_testdev')


def own_input(row: Row) -> str:
    """Height x width that a row's config has by its name."""
    return '{}x{}'.format(*zoo.input_size(row.name)) if row.config else ''


def config_cell(row: Row, base: Optional[Path]) -> str:
    """Name of a row's config, as a link from the folder ``base``."""
    if not row.config:
        return f'none: {row.reason}'
    if base is None:
        return row.name
    return f'[{row.name}]({os.path.relpath(row.path, base)})'


def cost_cells(row: Row, printed: Printed) -> Dict[str, str]:
    """Parameters and FLOPs as counted now and as printed."""
    cells = {
        'params (paper)': printed.parameters,
        'GFLOPs (paper)': printed.flops.removesuffix('G')
    }
    if row.config:
        counted = count_row(row, shape_of(printed.flops_at))
        flops = counted.total(f'paper-{row.task}') / 1e9
        cells['params'] = like(counted.parameters / 1e6, printed.parameters,
                               'M')
        cells['GFLOPs'] = like(flops, printed.flops)
        cells['GMACs'] = like(counted.total('macs') / 1e9, printed.flops)
    return cells


def accuracy_cells(row: Row, printed: Printed) -> Dict[str, str]:
    """Accuracy by who says so."""
    headline = HEADLINE[row.task]
    if isinstance(printed.metrics, str):
        name = SHORT.get(headline[0], headline[0])
        cells = {f'{name} (paper)': printed.metrics}
    else:
        cells = {f'{SHORT.get(name, name)} (paper)': str(value)
                 for name, value in printed.metrics.items()}
    if row.official:
        cells['official code'] = metric_text(row.official.metrics, headline)
    cells['others'] = '; '.join(
        f'{other.by}: {metric_text(other.metrics, headline)}'
        for other in row.third_party)
    cells['measured here'] = '; '.join(
        metric_text(result.metrics, headline) for result in row.results)
    return cells


def row_cells(row: Row, printed: Printed,
              base: Optional[Path]) -> Dict[str, str]:
    """Cells of a line, by column."""
    return {
        'model': printed.row,
        'data': data_of(row),
        'input': printed.input or printed.flops_at or own_input(row),
        'config': config_cell(row, base),
        **cost_cells(row, printed),
        **accuracy_cells(row, printed), 'note': printed.note
    }


def column_order(lines: Sequence[Mapping[str, str]]) -> List[str]:
    """Columns that any line fills, in a fixed order."""
    first = ['model', 'data', 'input', 'config', 'params', 'params (paper)',
             'GFLOPs', 'GFLOPs (paper)', 'GMACs']
    last = ['official code', 'others', 'measured here', 'note']
    seen = dict.fromkeys(name for line in lines for name in line)
    metrics = [name for name in seen if name not in first + last]
    return [name for name in first + metrics + last
            if name == 'measured here' or any(line.get(name)
                                              for line in lines)]


def instances_table() -> str:
    """Table 2: our sizes, and whether the paper prints the same."""
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
    """Without notes, and of the metrics only those that a task is known by."""
    metrics = printed.metrics
    if not isinstance(metrics, str):
        metrics = {k: v for k, v in metrics.items() if k in HEADLINE[task]}
    return replace(printed, metrics=metrics, note='')


def main_line(row: Row) -> Optional[Printed]:
    """How the paper's table of a task prints a row of HRFormer, if at all.

    Rows that only the README of the official code has count as well.
    """
    if not row.name.startswith('hrformer_'):
        return None
    table = MAIN_TABLE[row.task]
    if table in row.paper:
        return shorten(row.paper[table], row.task)
    if row.official and 'Table 4' not in row.paper:  # that is COCO test-dev
        return Printed(f"HRFormer-{row.name.split('_')[1].upper()}",
                       metrics={})
    return None


def rows_of(name: str) -> List[Tuple[Row, Printed]]:
    """Rows of a table, and how the paper prints each.

    Raises:
        ValueError: For a name that is not in ``NAMES``.
    """
    if name not in NAMES:
        raise ValueError(f'table must be one of {list(NAMES)}, got {name!r}')
    if name in zoo.TASKS:
        lines = [(row, main_line(row)) for row in zoo.list_rows(task=name)]
        return [(row, line) for row, line in lines if line]
    table = NAMES[name]
    return [(row, row.paper[table]) for row in zoo.list_rows(table)]


def case_name(case: Mapping[str, Any]) -> str:
    """Name a case of the backbone benchmark, such as base 256x192 x4 train."""
    window = '' if case['window'] == 7 else f" w{case['window']}"
    height, width = case['size']
    return (f"{case['arch']}{window} {height}x{width} "
            f"x{case['batch']} {case['mode']} {case['dtype']}")


def mib(value: Optional[int]) -> str:
    """Format bytes as MiB, or nothing as an empty cell."""
    return '' if value is None else f'{value / 2**20:,.0f}'


def benchmark_table(path: Path) -> str:
    """Format the results of the backbone benchmark, a line per subject."""
    rows = []
    for entry in json.loads(path.read_text(encoding='utf-8-sig'))['results']:
        compared = entry['subjects']
        for name, row in compared.items() if len(compared) > 1 else ():
            rows.append((case_name(entry['case']), name, f'{row["ratio"]:.2f}',
                         f'{row["images_per_second"]:.3g}',
                         mib(row['peak_bytes'])))
    return markdown_table(('case', 'subject', 'ratio', 'images/s', 'MiB'),
                          rows)


def summary_table(base: Optional[Path]) -> str:
    """Format HRFormer's configs of all tasks, narrow enough for a README."""

    def best(metrics: Union[zoo.Metrics, str], task: str) -> str:
        text = metric_text(metrics, [MAIN_METRIC[task]])
        return text.replace(' (ms+flip)', '')

    lines = []
    for task in zoo.TASKS:
        for row, printed in rows_of(task):
            cells = cost_cells(row, printed)
            link = '' if base is None else os.path.relpath(row.path, base)
            official = row.official.metrics if row.official else ''
            lines.append([
                f'[{printed.row}]({link})' if link else row.name,
                data_of(row),
                printed.input or printed.flops_at or own_input(row),
                cells.get('params', ''), cells.get('GFLOPs', ''),
                best(printed.metrics, task), best(official, task)
            ])
    return markdown_table(('config', 'data', 'input', 'params', 'GFLOPs',
                           'paper', 'official code'), lines)


def render(name: str, base: Optional[Path] = None) -> str:
    """A table in Markdown.

    Args:
        name: One of ``NAMES``: ``'pose'``, ``'table-3'``, ``'appendix'``;
            ``'summary'``; or a benchmark's results, a file that ends in
            ``.json``.
        base: Folder that links to configs and names of files start from; no
            links without.
    """
    if name == 'summary':
        return summary_table(base)
    if name == 'table-2':
        return instances_table()
    if name.endswith('.json'):
        return benchmark_table((zoo.root() if base is None else base) / name)
    lines = [row_cells(row, printed, base) for row, printed in rows_of(name)]
    if not lines:
        return 'No rows yet.\n'
    columns = column_order(lines)
    return markdown_table(columns, [[line.get(c, '') for c in columns]
                                    for line in lines])


def refresh(text: str, base: Path) -> str:
    """Write every table between its markers anew.

    A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
    """
    return BLOCK.sub(
        lambda m: f'{m[1]}\n{render(m[2], base)}\n{m[3]}', text)


def documents() -> List[Path]:
    """Files that hold tables."""
    root = zoo.root()
    places = [root / 'README.md', *sorted((root / 'docs').glob('*.md')),
              *(root / 'configs' / task / 'README.md' for task in zoo.TASKS)]
    return [path for path in places if path.exists()]


def table_rows(block: str) -> List[str]:
    """Lines of a table without what depends on the width of its columns."""
    lines = [' '.join(line.split()) for line in block.splitlines()]
    return [line for line in lines if line.strip('|- ')]


def stale_documents() -> List[str]:
    """What in the documents is not as it would be written now."""
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


def drift() -> List[str]:
    """Where configs, metafiles and documents contradict each other."""
    problems = []
    listed = {row.config for row in zoo.list_rows()}
    problems += [f'{name}: no metafile has it'
                 for name in sorted(set(zoo.config_files()) - listed)]
    for row in zoo.list_rows():
        if not row.config:
            continue
        if not row.path.exists():
            problems.append(f'{row.config}: is in a metafile but not there')
            continue
        found = parameters(row)
        if row.parameters != found:
            problems.append(f'{row.name}: the metafile says '
                            f'{row.parameters} parameters, it has {found}')
    return problems or stale_documents()
