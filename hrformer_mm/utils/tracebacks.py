# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Write tracebacks of runs to their log files.

The terminal shows a user error in one line. That is enough before a run
starts, but an error after days of training may not be reproducible, so its
traceback must be kept.
"""
import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command lines start without it
    from mmengine.runner import Runner

ATTRIBUTE = 'hrformer_mm_log'  # attribute of an error: its log file


@contextmanager
def logged_traceback(runner: 'Runner') -> Iterator[None]:
    """Write the traceback of an error that ends a run to its log file.

    The error is raised again; :func:`log_of` returns the path of the file.
    mmengine opens a log file in the first process only; other processes write
    a file of their own beside it.
    """
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # a full disk may be what is reported
            setattr(error, ATTRIBUTE, str(write_traceback(runner, error)))
        raise


def iterations_of(runner: 'Runner') -> int:
    """Return the number of completed iterations.

    ``runner.iter`` would build the loop.
    """
    return getattr(runner._train_loop, 'iter', 0)  # a dict if not built


def write_traceback(runner: 'Runner', error: Exception) -> Path:
    """Append a traceback to the log file of a run and return its path."""
    text = ''.join(
        traceback.format_exception(type(error), error, error.__traceback__))
    files = [h for h in runner.logger.handlers
             if isinstance(h, logging.FileHandler)]
    if files:
        for handler in files:
            handler.flush()
        path = Path(files[0].baseFilename)
    else:
        from mmengine.dist import get_rank
        path = Path(runner.log_dir) / f'error_rank{get_rank()}.log'
        path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', encoding='utf-8') as file:
        file.write('The run ended by an error after iteration '
                   f'{iterations_of(runner)}:\n{text}')
        file.flush()
        os.fsync(file.fileno())  # the machine may be preempted next
    return path


def log_of(error: BaseException) -> str | None:
    """Return the file with the traceback of an error, None without one."""
    return getattr(error, ATTRIBUTE, None)
