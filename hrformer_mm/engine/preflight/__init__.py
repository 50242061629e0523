# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check a training before it starts: config, data, memory and first steps.

``tools/train.py CONFIG --dry-run`` calls :func:`preflight`. Every check adds
lines to a table; a failed check does not prevent the others. ``--quick`` makes
only the checks that take seconds.
"""
import gc
import os
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import TextIO

from mmengine.config import Config
from mmengine.registry import DefaultScope

from ...utils.config_checks import TRAINED, check_parts
from ...utils.redirect import redirect_output
from ..distributed import VARIABLES
from . import inputs, steps
from .rehearsal import Rehearsal
from .report import FAIL, OK, SKIP, WARN, Flight

__all__ = ['CHECKS', 'FAIL', 'Flight', 'OK', 'QUICK', 'Rehearsal', 'SKIP',
           'WARN', 'preflight']
QUICK = (inputs.check_config, inputs.check_machine, inputs.check_paths,
         inputs.check_weights)
CHECKS = (inputs.check_config, inputs.check_machine, inputs.check_data,
          inputs.check_weights, steps.check_batch,
          steps.check_schedule, steps.check_step, steps.check_evaluation,
          steps.check_memory, steps.check_time, steps.check_disk)


def place(launcher: str) -> tuple[int, int]:
    """Return the rank of this process, and the number of processes.

    For a dry run, dist_train.sh sets the latter and starts one process only.
    """
    names = VARIABLES.get(launcher, VARIABLES['pytorch'])
    return (int(os.environ.get(names['RANK'], 0)),
            int(os.environ.get(names['WORLD_SIZE'], 1)))


def plural(number: int, noun: str) -> str:
    """Format a number with its noun, as ``1 error`` or ``2 errors``."""
    return f'{number} {noun}{"" if number == 1 else "s"}'


def preflight(cfg: Config, stream: TextIO | None = None,
              quick: bool = False) -> int:
    """Check a run and print the findings, in one process for all.

    Args:
        cfg: Config of the training; it is not changed.
        stream: Where to print; by default stdout.
        quick: Check only config, machine, paths and weights.

    Returns:
        1 if the run would fail, else 0.

    Raises:
        ValueError: If the config has no training.
    """
    stream = stream or sys.stdout
    rank, processes = place(cfg.get('launcher', 'none'))
    if rank:
        return 0
    check_parts(cfg, *TRAINED)
    states: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        flight = Flight(deepcopy(cfg), processes, folder)
        flight.cfg.launcher = 'none'
        for check in QUICK if quick else CHECKS:
            with redirect_output(Path(folder) / 'log.txt'), \
                    DefaultScope.overwrite_default_scope(
                        cfg.get('default_scope')):
                findings = list(check(flight))
            for finding in findings:
                print(finding, file=stream, flush=True)
                states.append(finding.state)
        del flight
        gc.collect()  # stops the workers of its data loaders
    failed, warned = states.count(FAIL), states.count(WARN)
    passed = 'config, paths and weights are valid' if quick else (
        'ready to train')
    verdict = 'this run would fail' if failed else passed
    print(f'{verdict}: {plural(failed, "error")}, {plural(warned, "warning")}',
          file=stream, flush=True)
    return int(failed > 0)
