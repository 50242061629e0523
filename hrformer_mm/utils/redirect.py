# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Keep the output of the frameworks out of the terminal."""
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from mmengine.logging import MMLogger


@contextmanager
def redirect_output(path: Path) -> Iterator[None]:
    """Append printed and logged output to a file instead."""
    with path.open('a', buffering=1, encoding='utf-8') as file:
        try:
            with redirect_stdout(file), redirect_stderr(file):
                yield
        finally:
            for logger in MMLogger._instance_dict.values():
                for handler in list(logger.handlers):
                    if getattr(handler, 'stream', None) is file:
                        logger.removeHandler(handler)
