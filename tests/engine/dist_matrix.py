# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The processes that test_resume_matrix.py starts.

    dist_matrix.py FOLDER CASE stop       # train until a signal comes
    dist_matrix.py FOLDER CASE compare    # resume it, and train another whole
"""
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny_tasks import task_config

from hrformer_mm.engine import train as training

SAMPLES, EPOCHS, ITERATIONS = 20, 2, 10  # two processes with batches of 2


@dataclass(frozen=True)
class Case:
    """Switches of a training, and who gets the signal."""
    task: str
    with_cp: Any
    sync_bn: Any
    compile: bool
    ema: bool
    window: int
    signalled: str


# Each pair of values of two switches is in one of them.
CASES = [
    Case('cls', False, 'torch', False, False, 4, 'process'),
    Case('pose', False, None, True, True, 1, 'group'),
    Case('seg', 'ffn', 'torch', False, True, 1, 'group'),
    Case('cls', 'ffn', None, True, False, 4, 'process'),
    Case('pose', True, 'torch', True, False, 1, 'process'),
    Case('seg', True, None, False, True, 4, 'group'),
]


@HOOKS.register_module()
class Beat(Hook):
    """Write a line to a file before each batch, and take some time."""

    def __init__(self, path: str):
        self.path = path

    def before_train_iter(self, runner, *args, **kwargs):
        if is_main_process():
            with open(self.path, 'a') as file:
                file.write(f'{runner.iter}\n')
        time.sleep(.05)

    before_val_iter = before_train_iter


def config_of(case: Case, folder: Path, name: str) -> Config:
    """Return a shipped config, small and with the switches of a case."""
    cfg = task_config(case.task, folder, SAMPLES)
    cfg.work_dir = str(folder / name)
    cfg.experiment_name = f'{folder.name}_{name}_{time.time_ns()}'
    cfg.visualizer.name = cfg.experiment_name
    cfg.launcher, cfg.sync_bn = 'pytorch', case.sync_bn
    cfg.model.backbone.with_cp = case.with_cp
    cfg.optim_wrapper.accumulative_counts = case.window
    if case.compile:
        cfg.compile = dict(backend='aot_eager')
    if case.task == 'seg':  # evaluated and saved inside of windows
        cfg.train_cfg.update(max_iters=ITERATIONS, val_interval=3)
        cfg.default_hooks.checkpoint.interval = 6
    else:
        cfg.train_cfg.update(max_epochs=EPOCHS, val_interval=1)
        cfg.default_hooks.checkpoint.interval = 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=1, persistent_workers=True)
    hooks = [dict(type='mmengine.Beat', path=str(folder / f'{name}.beats'))]
    if case.ema:
        hooks.append(dict(type='EMAHook', momentum=.1))
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
    return cfg


def main(folder: Path, case: Case, mode: str):
    cfg = config_of(case, folder, 'stopped')
    cfg.resume = mode == 'compare'
    training.train(cfg)
    if mode == 'compare':
        torch._dynamo.reset()
        training.train(config_of(case, folder, 'whole'))


if __name__ == '__main__':
    main(Path(sys.argv[1]), CASES[int(sys.argv[2])], sys.argv[3])
