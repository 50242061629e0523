# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""State shared by the checks: findings, and facts about the run."""
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple

from mmengine.config import Config

from ...datasets.validation.common import LOADERS
from ...utils import cli

OK, WARN, FAIL, SKIP = 'ok', 'warn', 'FAIL', 'skip'
TRACE = 'set HRFORMER_MM_TRACEBACK=1 to print the traceback'
# Attributes of Flight without which a check is skipped.
NEEDS = dict(model='a valid model', samples='a valid config and data',
             is_ready='a valid config and data',
             rehearsal='the training steps')  # yapf: disable


class Finding(NamedTuple):
    """A line of the table: subject, state, result and suggested fix."""
    what: str
    state: str
    found: str
    fix: str = ''

    def __str__(self) -> str:
        line = f'{self.state:5} {self.what:11} {self.found}'
        return line + (f'\n{"":18}-> {self.fix}' if self.fix else '')


@dataclass
class Flight:
    """Facts about a run, which the checks use and extend."""
    cfg: Config  # inputs.check_machine adapts it to the machine
    processes: int
    folder: str  # an empty one, for output of the frameworks
    model: Any = None  # a Module that could be built
    is_built: bool = False  # all parts of the config
    sizes: dict[str, int] = field(default_factory=dict)  # of the datasets
    reading: dict[str, float] = field(default_factory=dict)  # s per sample
    rehearsal: Any = None  # a Rehearsal whose steps succeeded
    evaluating: float = 0.  # seconds per sample

    @property
    def loaders(self) -> list[str]:
        """Return the names of the data loaders that training uses."""
        return [name for name in LOADERS[:2] if self.cfg.get(name)]

    @property
    def batch(self) -> int:
        """Return the number of samples per step in one process."""
        return self.cfg.train_dataloader.batch_size

    @property
    def samples(self) -> int:
        """Return the number of training samples, 0 if they are unknown."""
        return self.sizes.get('train_dataloader', 0)

    @property
    def is_ready(self) -> bool:
        """Return whether training steps can be run."""
        return self.is_built and self.samples > 0


def describe_error(error: Exception) -> str:
    """Format an error in one line, with its type if it is unexpected."""
    if cli.wants_traceback():
        traceback.print_exception(error, file=sys.__stderr__)
    line = cli.one_line(error)
    return line if cli.is_mistake(error) else f'{type(error).__name__}: {line}'


def attempt(what: str, build: Callable, *args: Any) -> tuple[Any, str]:
    """Call a function; return its result, and its error as text or ''."""
    try:
        return build(*args), ''
    except Exception as error:  # any of them would end the run, too
        return None, f'{what}: {describe_error(error)}'


def findings_about(name: str, needs: str = '') -> Callable:
    """Name the findings of a check, and report its errors as findings.

    Args:
        name: Subject of the findings.
        needs: Key of :data:`NEEDS`.
    """

    def decorate(function: Callable) -> Callable:

        @wraps(function)
        def findings(flight: Flight) -> Iterator[Finding]:
            if needs and not getattr(flight, needs):
                yield Finding(name, SKIP, f'needs {NEEDS[needs]}')
                return
            try:
                for finding in function(flight):
                    yield Finding(name, *finding)
            except Exception as error:  # it would end the run, too
                yield Finding(name, FAIL, describe_error(error), TRACE)

        return findings

    return decorate
