# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Download files once, completely, and only if their hash is right."""
import hashlib
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OFFLINE = 'HRFORMER_MM_OFFLINE'
ATTEMPTS, TIMEOUT = 4, 60  # connections to a server, seconds to wait for data
BLOCK = 1 << 18
NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def check_hash(name: str, path: str | Path):
    """Check a file against the hash in its name (OpenMMLab's convention).

    Raises:
        ValueError: If they differ. A name without a hash passes.
    """
    match = re.search(r'-([0-9a-f]{8})(_\d{8})?\.(pth|safetensors)$', name)
    if match and not sha256(path).startswith(match[1]):
        raise ValueError(f'{name} is damaged: its sha256 begins with '
                         f'{sha256(path)[:8]}')


def is_offline() -> bool:
    """Whether ``$HRFORMER_MM_OFFLINE`` forbids downloads."""
    return os.environ.get(OFFLINE, '0') not in ('', '0')


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time write a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f'.{path.name}.lock'), 'wb') as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def total_size(response: Any, start: int) -> int | None:
    """Return the size of the whole file, if the server states it."""
    length = response.headers.get('Content-Length')
    return None if length is None else start + int(length)


def append(url: str, part: Path, progress: Progress, bar: Any):
    """Download what a partial file lacks.

    Raises:
        ConnectionError: If the server ended before the file did.
    """
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url)
    if start and url.startswith('http'):
        request.add_header('Range', f'bytes={start}-')
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        is_rest = isinstance(response, HTTPResponse) and response.status == 206
        start = start if is_rest else 0
        size = total_size(response, start)
        progress.update(bar, completed=start, total=size)
        with part.open('ab' if is_rest else 'wb') as file:
            while block := response.read(BLOCK):
                file.write(block)
                progress.advance(bar, len(block))
    found = part.stat().st_size
    if size is not None and found < size:
        raise ConnectionError(f'{url} was cut off at {found} of {size} bytes')


def fetch(url: str, part: Path):
    """Download a file in as many connections as it takes."""
    console = Console(stderr=True)
    with Progress(
            TextColumn('{task.description}'), BarColumn(), DownloadColumn(),
            TransferSpeedColumn(), TimeRemainingColumn(), console=console,
            disable=not console.is_terminal) as progress:
        bar = progress.add_task(f'downloading {part.name[1:-5]}', total=None)
        for attempt in range(ATTEMPTS):
            try:
                return append(url, part, progress, bar)
            except HTTPError as error:
                if error.code == 416:  # the partial file is of another version
                    part.unlink(missing_ok=True)
                elif error.code < 500:
                    raise
            except NETWORK_ERRORS:
                if attempt == ATTEMPTS - 1 or not part.exists():
                    raise  # never reached
            time.sleep(min(2**attempt / 4, 5))
    raise ConnectionError(f'{url} does not send the file')


def download(url: str, path: Path) -> bool:
    """Download a file unless another process just did.

    A file that is cut off is continued, by the next attempt or the next call.
    It gets its name when it is complete and has the hash in that name.

    Args:
        url: ``http``, ``https`` or ``file`` URL.
        path: Where to save it.

    Returns:
        Whether the file is there now. ``False`` if it cannot be reached.

    Raises:
        ValueError: If it does not have the hash in its name.
    """
    if is_offline() and not url.startswith('file:'):
        return False
    with only_process(path):
        if path.is_file():
            return True
        part = path.with_name(f'.{path.name}.part')
        print(f'downloading {url} to {path}', file=sys.stderr)
        try:
            fetch(url, part)
        except NETWORK_ERRORS as error:
            print(f'{url}: {error}', file=sys.stderr)
            return False
        try:
            check_hash(path.name, part)
        except ValueError:
            part.unlink()
            raise
        os.replace(part, path)
    return True
