# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Tracebacks of runs, which are in the log whatever the terminal shows.

A command reports a mistake in one line. Before a run starts that is enough; an
error after days of training needs its traceback, and the run may not come
back to show it.
"""
import logging
import os
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Optional

if TYPE_CHECKING:  # the command lines start without it
    from mmengine.runner import Runner

ATTRIBUTE = 'hrformer_mm_log'  # of an error: the file with its traceback


@contextmanager
def logged_traceback(runner: 'Runner') -> Iterator[None]:
    """Write the traceback of an error that ends a run into its log file.

    The error is raised again, and :func:`log_of` names the file. A process
    without a log file, which mmengine gives to the first one only, writes its
    own one beside it.
    """
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # a full disk may be what is reported
            setattr(error, ATTRIBUTE, str(write_traceback(runner, error)))
        raise


def iterations_of(runner: 'Runner') -> int:
    """Return the iterations that were done; ``runner.iter`` builds a loop."""
    return getattr(runner._train_loop, 'iter', 0)  # a config has none


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
        os.fsync(file.fileno())  # the machine may be taken away next
    return path


def log_of(error: BaseException) -> Optional[str]:
    """Return the file that holds the traceback of an error, if one does."""
    return getattr(error, ATTRIBUTE, None)
