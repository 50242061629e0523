# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Format tables in Markdown."""
from collections.abc import Sequence


def markdown_table(header: Sequence[str],
                   rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table, readable as plain text too."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ['-' * width for width in widths])
    return '\n'.join('| ' + ' | '.join(
        cell.ljust(width) for cell, width in zip(line, widths)) + ' |'
                     for line in lines) + '\n'
