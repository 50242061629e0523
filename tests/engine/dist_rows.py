# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Configs of all tasks for test_distributed_rows.py, alone or by torchrun."""
import json
import os
import sys
from pathlib import Path

import torch
import toy  # noqa: F401, which registers the hook that records
from mmengine.config import Config
from tiny_tasks import CONFIG_FILES, task_config

from hrformer_mm.engine import train as training


def config_of_steps(task: str, folder: Path, processes: int,
                    steps: int) -> Config:
    """A config of an even number of steps, batches 8 over all processes."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = task_config(task, folder, samples=16, batch=8 // processes,
                      passes=steps // 2)
    if 'max_iters' in cfg.train_cfg:  # counts the batches of one process
        cfg.train_cfg.update(max_iters=steps, val_interval=steps)
        cfg.default_hooks.checkpoint.interval = steps
    else:
        cfg.train_cfg.val_interval = steps // 2
        cfg.default_hooks.checkpoint.interval = steps // 2
    cfg.custom_imports.imports = [*cfg.custom_imports.imports, 'toy']
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(
        type='mmengine.RecordSteps', path=str(folder / 'steps.pth'))]
    return cfg


def metrics(folder: Path) -> dict:
    lines = next(folder.glob('run/*/vis_data/scalars.json')).read_text()
    last = json.loads(lines.splitlines()[-1])
    return {k: v for k, v in last.items() if 'time' not in k and k != 'step'}


def train_configs(folder: Path, processes: int, steps: int):
    """Train a config of each task in its own folder, in double precision."""
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for task in CONFIG_FILES:
            cfg = config_of_steps(task, folder / task, processes, steps)
            cfg.launcher = 'pytorch' if processes > 1 else 'none'
            training.train(cfg)
    finally:
        torch.set_default_dtype(kind)
        torch.use_deterministic_algorithms(False)


if __name__ == '__main__':
    # Processes would write the same data at once, so each has its own.
    place = Path(sys.argv[1]) / os.environ['RANK']
    train_configs(place, int(os.environ['WORLD_SIZE']), int(sys.argv[2]))
