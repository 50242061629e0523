# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Run the steps of a plan, and measure the time of one."""
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.device import get_device

from ...engine.train import fit_machine, merge_options, set_data_root
from ...utils.config_checks import check_data_files
from ..entries import get_config
from .plan import Plan, keep_batch
from .report import comparison_table


def measure_step(plan: Plan,
                 data_root: str | None = None,
                 options: Mapping[str, Any] | None = None) -> float:
    """Measure the seconds of a training step on one device of this machine.

    Prints the result and the device.

    Args:
        plan: Plan of the entry.
        data_root: Folder of the data.
        options: Options as in :func:`make_plan`.

    Raises:
        FileNotFoundError: If the data are missing.
    """
    from ...engine.preflight.rehearsal import Rehearsal
    cfg = get_config(plan.entry)
    if data_root:
        set_data_root(cfg, data_root)
    merge_options(cfg, {**keep_batch(cfg, plan.gpus), **(options or {})})
    check_data_files(cfg, 'train_dataloader')
    batch = cfg.train_dataloader.batch_size
    fit_machine(cfg)
    with TemporaryDirectory() as folder:
        rehearsal = Rehearsal(cfg, folder)
        found = rehearsal.train()
        if get_device() == 'cpu':  # more samples only take longer
            seconds = found.seconds * batch / found.samples
        else:
            seconds = rehearsal.time(batch)
    print(f'a step of {batch} samples took {seconds:.3f} s on one '
          f'{get_device()} device, without data loading')
    return seconds


def run_command(command: Sequence[str]) -> int:
    """Run a command with the Python of this process; return its exit code.

    If an environment is not active, PATH may have another Python.
    """
    environment = dict(os.environ, PYTHON=sys.executable)
    if command[0] == 'python':
        command = (sys.executable, *command[1:])
    return subprocess.run(command, env=environment).returncode


def run_plan(plan: Plan,
             tell: Callable[[str], None] = print):  # language: allow
    """Run the steps that are not complete yet; trainings resume.

    Raises:
        FileNotFoundError: If required files are missing.
        RuntimeError: If a command fails or does not make its file.
    """
    report = tell  # language: allow
    if plan.needs:
        raise FileNotFoundError('needed first: ' + '; '.join(plan.needs))
    for number, step in enumerate(plan.steps, 1):
        if step.makes.exists():
            report(f'{number}. {step.name}: done, {step.makes} exists')
            continue
        report(f'{number}. {step.name}: {shlex.join(step.command)}')
        code = run_command(step.command)
        if code or not step.makes.exists():
            raise RuntimeError(
                f'{step.name} ended with code {code} and '
                f'{"with" if step.makes.exists() else "without"} '
                f'{step.makes}; run the same command to continue')
    report(comparison_table(plan))
