# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""State shared by the checks: findings, and facts about the run."""
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from torch import nn

from ...datasets.validation.common import LOADERS
from ...utils import cli
from ...utils.costs import GIB
from .rehearsal import Rehearsal

OK, WARN, FAIL, SKIP = 'ok', 'warn', 'FAIL', 'skip'


@dataclass(frozen=True)
class Finding:
    """A line of the table.

    Attributes:
        what: Subject of the check.
        state: :data:`OK`, :data:`WARN`, :data:`FAIL` or :data:`SKIP`.
        found: Description of the result.
        fix: Suggested fix.
    """
    what: str
    state: str
    found: str
    fix: str = ''

    def __str__(self) -> str:
        line = f'{self.state:5} {self.what:11} {self.found}'
        return line + (f'\n{"":18}-> {self.fix}' if self.fix else '')


@dataclass
class Flight:
    """Facts about a run, which the checks use and extend.

    Attributes:
        cfg: Config of the run; :func:`.inputs.check_machine` adapts it to
            the machine.
        processes: Number of processes of the run.
        folder: Empty folder for output of the frameworks.
        is_built: Whether all parts of the config could be built.
        sizes: Number of samples, by data loader.
        reading: Seconds to read a sample, by data loader.
        evaluating: Seconds to evaluate a sample.
    """
    cfg: Config
    processes: int
    folder: str
    model: nn.Module | None = None
    is_built: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    reading: dict[str, float] = field(default_factory=dict)
    rehearsal: Rehearsal | None = None
    evaluating: float = 0.

    @property
    def loaders(self) -> list[str]:
        """Return the names of the data loaders that training uses."""
        return [name for name in LOADERS[:2] if self.cfg.get(name)]

    @property
    def batch(self) -> int:
        """Return the number of samples per step in one process."""
        return self.cfg.train_dataloader.batch_size


def describe_error(error: Exception) -> str:
    """Format an error in one line, with its type if it is unexpected."""
    if os.environ.get('HRFORMER_MM_TRACEBACK', '0') not in ('', '0'):
        traceback.print_exception(
            type(error), error, error.__traceback__, file=sys.__stderr__)
    line = cli.one_line(error)
    return line if cli.is_mistake(error) else f'{type(error).__name__}: {line}'


def attempt(what: str, build: Callable, *args: Any) -> tuple[Any, str]:
    """Call a function; return its result, and its error as text or ''."""
    try:
        return build(*args), ''
    except Exception as error:  # any of them would end the run, too
        return None, f'{what}: {describe_error(error)}'


def size(bytes: float) -> str:
    """Format a number of bytes as 1.2 GiB or 340 MiB."""
    gib = bytes / GIB
    return f'{gib:.1f} GiB' if gib >= 1 else f'{1024 * gib:.0f} MiB'


def duration(seconds: float) -> str:
    """Format seconds as 3.4 h, 12 min or 40 s."""
    if seconds >= 5400:
        return f'{seconds / 3600:.1f} h'
    return f'{seconds / 60:.0f} min' if seconds >= 90 else f'{seconds:.0f} s'
