# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check that memory and step time do not grow in a long training.

The model is small and the data synthetic, as leaks do not depend on size.
Everything that a training does is done often: loading with a worker,
evaluating, saving, logging.

Exits with code 1 if memory or step time grows.
"""
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from hrformer_mm.engine.train import (
    fit_machine,
    merge_options,
    read_config,
    set_data_root,
)
from hrformer_mm.quickstart.progress import Progress
from hrformer_mm.quickstart.runner import HISTORY, LOG, provide_data
from hrformer_mm.tasks import get_task
from hrformer_mm.utils import cli
from hrformer_mm.utils.paths import root
from hrformer_mm.utils.redirect import redirect_output

from .overfit import disable_regularization

EXAMPLES = """examples:
  python -m benchmarks.soak                # pose, a few minutes on one core
  python -m benchmarks.soak --task seg --iters 10000
"""

ARCH: dict[str, Any] = dict(
    channels=(8, 16, 32, 64), heads=(1, 2, 4, 8), modules=(1, 1, 1), blocks=1)
IMAGES = (40, 4)  # for training and for evaluation
PERIODS = 20  # each ends with an evaluation and a checkpoint
WARM = 0.1  # share of the steps after which memory must not grow


def small_model(task: str) -> dict:
    """Return config options that make the model of a quickstart small."""
    options = {'model.backbone.arch': dict(_delete_=True, **ARCH)}
    heads = dict(pose=('model.head', ARCH['channels'][0]),
                 seg=('model.decode_head', ARCH['channels']),
                 cls=('model.neck', ARCH['channels']),
                 det=('model.neck', ARCH['channels']))
    head, channels = heads[task]
    return {**options, f'{head}.in_channels': channels}


class Watch(Hook):
    """Record resident memory and duration of each step."""
    priority = 'LOWEST'

    def __init__(self):
        self.process = psutil.Process()
        self.memory: list[int] = []
        self.workers: list[int] = []
        self.seconds: list[float] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.began = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.seconds.append(time.perf_counter() - self.began)
        self.memory.append(self.process.memory_info().rss)
        self.workers.append(sum(
            child.memory_info().rss
            for child in self.process.children(recursive=True)))


@dataclass(frozen=True)
class Report:
    """Result of a soak test.

    Attributes:
        steps: Number of steps.
        warm: Number of warm-up steps, before memory is compared.
        start: Resident memory after the warm-up, in bytes.
        most: Peak resident memory after the warm-up, in bytes.
        workers: Peak memory of all data loading processes, in bytes.
        first: Median duration of the first tenth of steps after the warm-up,
            in seconds.
        last: Median duration of the last tenth of steps, in seconds.
    """
    steps: int
    warm: int
    start: int
    most: int
    workers: int
    first: float
    last: float

    @property
    def growth(self) -> float:
        """Return the relative growth of memory after the warm-up."""
        return self.most / self.start - 1

    @property
    def slowdown(self) -> float:
        """Return the relative growth of the duration of a step."""
        return self.last / self.first - 1

    def __str__(self) -> str:
        return (f'{self.steps} steps: memory {self.start / 2**20:.1f} MiB '
                f'after {self.warm}, at most {self.most / 2**20:.1f} MiB '
                f'later ({self.growth:+.2%}), workers '
                f'{self.workers / 2**20:.1f} MiB; a step takes '
                f'{1000 * self.first:.1f} ms at the start, '
                f'{1000 * self.last:.1f} ms at the end '
                f'({self.slowdown:+.1%})')


def summarize(watch: Watch) -> Report:
    steps = len(watch.memory)
    warm, tenth = int(WARM * steps), max(steps // 10, 1)
    return Report(steps, warm, watch.memory[warm - 1],
                  max(watch.memory[warm:]), max(watch.workers),
                  float(np.median(watch.seconds[warm:warm + tenth])),
                  float(np.median(watch.seconds[-tenth:])))


def make_config(name: str, iters: int, work_dir: Path,
                cfg_options: dict | None) -> Config:
    """Build a small, long config of the quickstart and generate its data."""
    from hrformer_mm.quickstart import cls, det, pose, seg
    task = dict(pose=pose, seg=seg, cls=cls, det=det)[name].TASK
    cfg = read_config(str(root() / 'configs' / task.config))
    data = work_dir / 'data'
    provide_data(task, data, IMAGES, 0, lambda text: None)
    set_data_root(cfg, str(data))
    disable_regularization(cfg, iters, lr=1e-4)
    period = max(iters // PERIODS, 1)
    cfg.train_cfg.val_interval = period
    cfg.default_hooks.checkpoint.update(interval=period, max_keep_ckpts=2)
    cfg.train_dataloader.update(
        batch_size=2, num_workers=1, persistent_workers=True,
        sampler=dict(type='InfiniteSampler', shuffle=True))
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    merge_options(cfg, {**small_model(name), **(cfg_options or {})})
    cfg.work_dir = str(work_dir / 'run')
    cfg.experiment_name = f'soak_{name}_{time.time_ns()}'
    return cfg


def soak(task: str,
         work_dir: str,
         iters: int = 2000,
         cfg_options: dict | None = None) -> Report:
    """Train a small model of a task for many steps.

    Args:
        task: ``'pose'``, ``'seg'``, ``'cls'`` or ``'det'``.
        work_dir: Empty folder for data, log and checkpoints.
        iters: Number of steps. The share :data:`WARM` of them is warm-up.
        cfg_options: Options merged into the config.

    Raises:
        ValueError: If ``iters`` is too small for a comparison.
    """
    if iters < 100:
        raise ValueError(f'iters must be at least 100, got {iters}')
    folder = Path(work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stream = sys.stdout  # inside the block, sys.stdout is the log
    with redirect_output(folder / LOG):
        cfg = make_config(task, iters, folder, cfg_options)
        fit_machine(cfg)
        runner = Runner.from_cfg(cfg)
        watch = Watch()
        runner.register_hook(watch)
        kind = get_task(cfg)
        runner.register_hook(
            Progress(folder / HISTORY, kind.metric, kind.metric_label, stream))
        runner.train()
    return summarize(watch)


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--task',
        choices=['pose', 'seg', 'cls'],
        default='pose',
        help='task to train (default: pose)')
    parser.add_argument(
        '--iters',
        type=int,
        default=2000,
        help='number of steps (default: 2000)')
    parser.add_argument(
        '--work-dir',
        help='empty folder for data, log and checkpoints (default: '
        'work_dirs/soak_TASK)')
    parser.add_argument(
        '--growth',
        type=float,
        default=0.02,
        help='accepted growth of memory after a tenth of the steps '
        '(default: 0.02, which is 2 %%)')
    parser.add_argument(
        '--slowdown',
        type=float,
        default=0.2,
        help='accepted growth of the duration of a step (default: 0.2; on an '
        'idle machine it is near 0)')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    report = soak(args.task, args.work_dir or f'work_dirs/soak_{args.task}',
                  args.iters, args.cfg_options)
    print(report)
    raise SystemExit(
        report.growth > args.growth or report.slowdown > args.slowdown)


if __name__ == '__main__':
    main()
