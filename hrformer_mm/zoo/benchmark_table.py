# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Read the results of the backbone benchmark and make their table."""
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..utils.markdown import markdown_table


def case_name(case: Mapping[str, Any]) -> str:
    """Format a case of the backbone benchmark as base 256x192 x4 train."""
    window = '' if case['window'] == 7 else f" w{case['window']}"
    count = case.get('threads')
    threads = f" {count} thread{'s' * (count > 1)}" if count else ''
    output = ' heatmaps' if case.get('heatmaps') else ''
    height, width = case['size']
    return (f"{case['arch']}{window} {height}x{width} "
            f"x{case['batch']} {case['mode']} {case['dtype']}{output}"
            f'{threads}')


def mib(value: int | None) -> str:
    """Format bytes as MiB; None as an empty cell."""
    return '' if value is None else f'{value / 2**20:,.0f}'


def read_results(path: Path) -> dict[str, Any]:
    """Read results of the backbone benchmark.

    Raises:
        ValueError: If it is another file.
    """
    try:
        found = json.loads(path.read_text(encoding='utf-8-sig'))
    except ValueError:
        found = None
    if not (isinstance(found, dict) and 'results' in found):
        raise ValueError(f'{path} is not a results.json of '
                         'benchmarks.backbone')
    return found


def benchmark_table(path: Path) -> str:
    """Format results of the backbone benchmark, a line per implementation."""
    rows = []
    for entry in read_results(path)['results']:
        compared = entry['subjects']
        for name, result in compared.items() if len(compared) > 1 else ():
            rows.append((case_name(entry['case']), name,
                         f'{result["ratio"]:.2f}',
                         f'{result["images_per_second"]:.3g}',
                         mib(result['peak_bytes'])))
    return markdown_table(('case', 'subject', 'ratio', 'images/s', 'MiB'),
                          rows)
