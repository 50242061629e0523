# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Doing the steps of a plan, and timing one."""
import os
import shlex
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any, Callable, Mapping, Optional, Sequence

from mmengine.device import get_device

from ...engine.train import fit_machine, merge_options, set_data_root
from ...utils.config_checks import check_data
from ..rows import get_config
from .plan import Plan, keep_batch
from .report import compare


def measure_step(plan: Plan,
                 data_root: Optional[str] = None,
                 options: Optional[Mapping[str, Any]] = None) -> float:
    """Seconds of a training step of a row on one device of this machine.

    Prints what was measured, and on what.

    Args:
        plan: Of the row.
        data_root: Where its data are.
        options: As they were given to :func:`make_plan`.

    Raises:
        FileNotFoundError: If the data are not there.
    """
    from ...preflight.rehearsal import Rehearsal
    cfg = get_config(plan.row)
    if data_root:
        set_data_root(cfg, data_root)
    merge_options(cfg, {**keep_batch(cfg, plan.gpus), **(options or {})})
    check_data(cfg, 'train_dataloader')
    batch = cfg.train_dataloader.batch_size
    fit_machine(cfg)
    with TemporaryDirectory() as folder:
        rehearsal = Rehearsal(cfg, folder)
        found = rehearsal.train()
        if get_device() == 'cpu':  # only takes longer for more samples
            seconds = found.seconds * batch / found.samples
        else:
            seconds = rehearsal.time(batch)
    print(f'a step of {batch} samples took {seconds:.3f} s on one '
          f'{get_device()} device, data loading left out')
    return seconds


def call(command: Sequence[str]) -> int:
    """Exit code of a command, run by the Python that runs this.

    Another may come first in PATH if an environment is not active.
    """
    environment = dict(os.environ, PYTHON=sys.executable)
    if command[0] == 'python':
        command = (sys.executable, *command[1:])
    return subprocess.run(command, env=environment).returncode


def run(plan: Plan, tell: Callable[[str], None] = print):
    """Do the steps that are not done yet; trainings resume.

    Raises:
        FileNotFoundError: If something must be put in place first.
        RuntimeError: If a command fails or does not make its file.
    """
    if plan.needs:
        raise FileNotFoundError('needed first: ' + '; '.join(plan.needs))
    for number, step in enumerate(plan.steps, 1):
        if step.makes.exists():
            tell(f'{number}. {step.name}: done, {step.makes} is there')
            continue
        tell(f'{number}. {step.name}: {shlex.join(step.command)}')
        code = call(step.command)
        if code or not step.makes.exists():
            raise RuntimeError(
                f'{step.name} ended with code {code} and '
                f'{"with" if step.makes.exists() else "without"} '
                f'{step.makes}; the same command continues from there')
    tell(compare(plan))
