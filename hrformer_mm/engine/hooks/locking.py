# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Lock work dirs, so that only one training run writes to a folder.

The operating system releases the lock when the process ends in any way, so a
crash leaves no stale lock. It is a POSIX record lock, which data loader
workers do not inherit and which network file systems support.
"""
import errno
import os
from contextlib import suppress
from pathlib import Path
from socket import gethostname
from typing import IO, Any

from mmengine.dist import broadcast_object_list, is_main_process

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = '.training.lock'
HELD_BY_OTHER = (errno.EACCES, errno.EAGAIN)
# Process and open lock file by folder. Closing any file object of a locked
# file would release the lock.
held: dict[str, tuple[int, IO[str]]] = {}


def lock_folder(folder: str) -> bool:
    """Lock a folder for this process; it may already hold the lock.

    Returns:
        Whether the folder is locked. False if the system does not support it.

    Raises:
        ValueError: If another process has locked it. Names the process.
    """
    key = os.path.realpath(folder)
    if held.get(key, (0, ))[0] == os.getpid():
        return True
    if fcntl is None:
        return False
    file = open(os.path.join(folder, NAME), 'a+', encoding='utf-8')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD_BY_OTHER:
            file.close()
            return False
        file.seek(0)
        owner = file.read().strip() or 'another process'
        file.close()
        raise ValueError(
            f'{folder} is in use by a training ({owner}): stop that one '
            'first, or choose another folder with --work-dir') from None
    file.truncate(0)
    file.write(f'process {os.getpid()} on {gethostname()}\n')
    file.flush()
    held[key] = (os.getpid(), file)
    return True


def unlock_folder(folder: str) -> None:
    """Release a folder if this process has locked it."""
    pid, file = held.pop(os.path.realpath(folder), (0, None))
    if file is not None and pid == os.getpid():
        file.close()


def unlock_all() -> None:
    """Release all folders after a training run has ended in any way.

    In a notebook, the process continues after an error.
    """
    for folder in list(held):
        unlock_folder(folder)


def lock_for_all(folder: str, logger: Any) -> bool:
    """Lock a folder in the first process on behalf of all processes.

    Raises:
        ValueError: On all processes, see :func:`lock_folder`.
    """
    found: list[Any] = [False, None]
    if is_main_process():
        try:
            found[0] = lock_folder(folder)
        except ValueError as error:
            found[1] = error
    broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    if not found[0]:
        logger.warning(f'{folder} cannot be locked on this system: do not '
                       'start a second training in it')
    return found[0]


def writer_of(temporary: Path) -> int | None:
    """Return the id of the process in the name of a temporary file."""
    number = temporary.suffixes[-2][1:].partition('-')[0] if (
        len(temporary.suffixes) > 1) else ''
    return int(number) if number.isdigit() else None


def is_running(pid: int) -> bool:
    with suppress(ProcessLookupError):
        try:
            os.kill(pid, 0)
        except PermissionError:  # a process of another user
            pass
        return True
    return False


def remove_leftovers(folder: str) -> None:
    """Remove incomplete checkpoints of processes that have ended."""
    for path in Path(folder).glob('.*.pth.*'):
        pid = writer_of(path)
        if pid is None or not is_running(pid):
            path.unlink(missing_ok=True)
