# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Read and write text files in UTF-8, regardless of the locale.

A byte order mark, as Windows editors write it, is accepted.
"""
import json
import sys
from os import PathLike
from pathlib import Path
from typing import Any, Union

StrPath = Union[str, 'PathLike[str]']


def read_text(path: StrPath) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: If it is not UTF-8. Names the file and the byte.
    """
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{path} is not UTF-8 (byte {error.start}: {error.reason}); '
            'convert it, for example with iconv -t utf-8') from None


def write_text(path: StrPath, text: str):
    """Write a text file in UTF-8, without a byte order mark."""
    Path(path).write_text(text, encoding='utf-8')


def read_json(path: StrPath) -> Any:
    """Read a JSON file in UTF-8.

    Raises:
        ValueError: If it is not JSON or not UTF-8. Names the file.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not a JSON file: {error}') from None


def write_json(path: StrPath, content: Any, **options: Any):
    """Write a JSON file, with ``options`` for :func:`json.dumps`."""
    write_text(path, json.dumps(content, **options))


def read_records(path: Path) -> list[dict]:
    """Read a file of one JSON record per line; ignore a truncated last one."""
    records = []
    text = read_text(path) if path.exists() else ''
    for line in text.splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def read_history(path: Path, until: int = sys.maxsize) -> list[dict]:
    """Read the records of a training run up to an iteration."""
    return [r for r in read_records(path) if r['iter'] <= until]
