# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Download files once, completely, and only if their hash is right."""
import hashlib
import os
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

from ..utils.cli import OFFLINE

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ATTEMPTS = 3  # connections in a row that bring nothing
TIMEOUT = 20  # seconds to wait for data
RETRIED = (408, 416, 429)  # besides the errors of servers, 5xx
BLOCK = 1 << 18
NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def check_hash(name: str, path: str | Path, known: str = ''):
    """Check a file against its hash.

    Args:
        name: File name; may contain the first digits of the hash, as those of
            OpenMMLab and torchvision do.
        path: File to check.
        known: First digits of its SHA-256, if stated elsewhere.

    Raises:
        ValueError: If they differ. A file without a stated hash passes.
    """
    match = re.search(r'-([0-9a-f]{8})(_\d{8})?\.(pth|safetensors)$', name)
    wanted = [digits.lower() for digits in (known, match and match[1])
              if digits]
    found = sha256(path) if wanted else ''
    for digits in wanted:
        if not found.startswith(digits):
            raise ValueError(f'{name} is damaged: its sha256 begins with '
                             f'{found[:len(digits)]}, not {digits}')


def is_offline() -> bool:
    """Whether ``$HRFORMER_MM_OFFLINE`` forbids downloads."""
    return os.environ.get(OFFLINE, '0') not in ('', '0')


@contextmanager
def only_process(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time write a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f'.{path.name}.lock'), 'wb') as lock:
        if fcntl is not None:
            with suppress(OSError):  # some network drives have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def size_on_disk(path: Path) -> int:
    """Return the size of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def continues(response: Any, start: int) -> bool:
    """Whether a response is the rest of a file, from byte ``start``.

    Raises:
        ConnectionError: If it is another part of the file.
    """
    if not isinstance(response, HTTPResponse) or response.status != 206:
        return False
    sent = response.headers.get('Content-Range') or f'bytes {start}-'
    if not sent.startswith(f'bytes {start}-'):
        raise ConnectionError(f'sent {sent} instead of bytes {start}-')
    return True


def append_rest(url: str, part: Path, progress: Progress, bar: Any):
    """Download the missing end of a partial file.

    Raises:
        ConnectionError: If the server ended before the file did.
    """
    start = size_on_disk(part)
    request = urllib.request.Request(url)
    if start and url.startswith('http'):
        request.add_header('Range', f'bytes={start}-')
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        is_rest = continues(response, start)
        start = start if is_rest else 0
        length = response.headers.get('Content-Length')
        size = None if length is None else start + int(length)
        progress.update(bar, completed=start, total=size)
        with part.open('ab' if is_rest else 'wb') as file:
            while block := response.read1(BLOCK):  # what has arrived
                file.write(block)
                progress.advance(bar, len(block))
    found = size_on_disk(part)
    if size is not None and found < size:
        raise ConnectionError(f'the connection was cut at {found} of {size} '
                              'bytes')


def fetch(url: str, part: Path):
    """Download a file in as many connections as it takes.

    Raises:
        OSError: If a server refuses it, or several connections in a row
            bring nothing.
    """
    console = Console(stderr=True)
    with Progress(
            TextColumn('{task.description}'), BarColumn(), DownloadColumn(),
            TransferSpeedColumn(), TimeRemainingColumn(), console=console,
            disable=not console.is_terminal) as progress:
        bar = progress.add_task(f'downloading {part.name[1:-5]}', total=None)
        vain = 0
        while True:
            before = size_on_disk(part)
            try:
                return append_rest(url, part, progress, bar)
            except NETWORK_ERRORS as error:
                code = error.code if isinstance(error, HTTPError) else 500
                if code < 500 and code not in RETRIED:
                    raise
                if code == 416:  # the partial file is of another version
                    part.unlink(missing_ok=True)
                vain = 0 if size_on_disk(part) > before else vain + 1
                if vain == ATTEMPTS:
                    raise
            time.sleep(min(2**vain / 4, 5))


def reason_of(error: BaseException) -> str:
    """Return the reason of a network error in a few words."""
    cause = error.reason if isinstance(error, URLError) and isinstance(
        error.reason, Exception) else error
    if isinstance(cause, TimeoutError):
        return f'no data for {TIMEOUT:g} s'
    return str(error) or type(error).__name__


def download(url: str, path: Path, sha256: str = '') -> bool:
    """Download a file unless another process just did.

    A file that is cut off is continued, by the next attempt or the next call.
    It gets its name when it is complete and has the right hash.

    Args:
        url: ``http``, ``https`` or ``file`` URL.
        path: Where to save it.
        sha256: First digits of its hash, if known; see :func:`check_hash`.

    Returns:
        Whether the file is there now. ``False`` if it cannot be reached.

    Raises:
        ValueError: If it has another hash.
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
            kept = size_on_disk(part)
            rest = (f'; {kept / 1e6:.1f} MB were received, and the next '
                    'attempt continues there') if kept else ''
            print(f'cannot download {url}: {reason_of(error)}{rest}',
                  file=sys.stderr)
            return False
        try:
            check_hash(path.name, part, sha256)
        except ValueError as error:
            part.unlink()
            raise ValueError(f'{url}: {error}') from None
        os.replace(part, path)
    return True
