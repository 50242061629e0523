# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The first steps of a training, taken with few samples and measured.

All is as in the training itself, schedules, hooks, data and precision, but
for the batch; it is broken off after a few steps and one evaluation, and
leaves nothing behind.
"""
import math
import time
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..utils.config import bare_name
from ..utils.costs import PeakMemory, nbytes, optimizer_bytes

SAMPLES = 2  # in a step; one alone fails in some batch norms
STEPS = 2  # the first warms up, the second is timed
NEVER = 10**9  # an epoch or iteration that no training reaches


class Enough(Exception):
    """Ends the training loop."""


@dataclass
class Measured:
    """What the steps showed.

    Attributes:
        samples: In each step.
        seconds: Of a step, without loading data.
        states: Bytes of weights and optimizer, which no batch changes.
        peak: Bytes at the fullest moment of a step, states included.
        slope: Bytes for each further sample.
        losses: By step.
    """
    samples: int
    seconds: float = math.nan
    states: int = 0
    peak: int = 0
    slope: float = 0.
    losses: List[float] = field(default_factory=list)

    def memory(self, batch: int) -> int:
        """Bytes that a batch of this size takes, linear in it."""
        return self.peak + round(self.slope * (batch - self.samples))


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Stopwatch(Hook):
    """Times steps and ends the training after :data:`STEPS`."""
    priority = 'LOWEST'

    def __init__(self, measured: Measured):
        self.measured = measured

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        synchronize()
        self.began = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        synchronize()
        self.measured.seconds = time.perf_counter() - self.began
        self.measured.losses.append(float(outputs['loss']))
        if len(self.measured.losses) == STEPS:
            raise Enough


def without_pretrained(cfg: Any):
    """Remove ``init_cfg`` of type Pretrained from all levels."""
    children = cfg.values() if isinstance(cfg, dict) else cfg
    for child in children:
        if isinstance(child, (dict, list)):
            without_pretrained(child)
    if isinstance(cfg, dict) and isinstance(cfg.get('init_cfg'), dict):
        if bare_name(cfg['init_cfg'].get('type', '')) == 'Pretrained':
            cfg['init_cfg'] = None


def shortened(cfg: Config, work_dir: str) -> Config:
    """The config with small batches, from scratch, without checkpoints."""
    cfg = deepcopy(cfg)
    without_pretrained(cfg.model)
    cfg.update(load_from=None, resume=False, work_dir=work_dir,
               launcher='none', experiment_name=f'rehearsal_{time.time_ns()}')
    for key in ('strategy', 'model_wrapper_cfg'):  # one process has no use
        cfg.pop(key, None)
    for name in ('train_dataloader', 'val_dataloader'):
        loader = cfg.get(name)
        if loader:
            loader.batch_size = min(loader.batch_size, SAMPLES)
            # One worker shows whether data can pass from one process to
            # another; more cost only time.
            loader.num_workers = min(loader.get('num_workers', 0), 1)
            if not loader.num_workers:
                loader.persistent_workers = False
                loader.pop('prefetch_factor', None)
    # A few samples must not end it before the steps are taken.
    for length in ('max_epochs', 'max_iters'):
        if cfg.train_cfg.get(length):
            cfg.train_cfg[length] = max(cfg.train_cfg[length], STEPS)
    cfg.train_cfg.val_begin = NEVER
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint:
        checkpoint.update(interval=-1, save_last=False, save_best=None)
        if str(checkpoint.type).endswith('SafeCheckpointHook'):
            checkpoint.stop_on_sigterm = False  # there is nothing to save
    return cfg


class Rehearsal:
    """A training that was begun.

    Args:
        cfg: Fit to this machine, its data in place; it is not changed.
        work_dir: An empty folder for what frameworks write.
    """

    def __init__(self, cfg: Config, work_dir: str):
        self.cfg = shortened(cfg, work_dir)
        self.whole = cfg.train_dataloader.batch_size
        self.measured = Measured(self.cfg.train_dataloader.batch_size)
        self.runner: Any = None  # a Runner, once it trained

    def train(self) -> Measured:
        """Take :data:`STEPS` steps, then weigh one, and one of more samples.

        Raises:
            Exception: Whatever the training raises.
        """
        self.runner = Runner.from_cfg(self.cfg)
        self.runner.register_hook(Stopwatch(self.measured))
        try:
            self.runner.train()
        except Enough:
            pass
        found, model = self.measured, self.runner.model
        found.states = nbytes([*model.parameters(), *model.buffers()]) + (
            optimizer_bytes(self.runner.optim_wrapper.state_dict()))
        found.peak = self.weigh(found.samples)
        more = min(2 * found.samples, self.whole) - found.samples
        if more:
            found.slope = (self.weigh(found.samples + more) -
                           found.peak) / more
        return found

    def batch(self, size: int) -> Any:
        """So many samples as the training gets them; few, which repeat."""
        loader = self.runner.train_dataloader
        few = [loader.dataset[i % len(loader.dataset)]
               for i in range(self.measured.samples)]
        return loader.collate_fn(
            [deepcopy(few[i % len(few)]) for i in range(size)])

    def step(self, batch: Any):
        self.runner.model.train()
        self.runner.model.train_step(batch, self.runner.optim_wrapper)
        synchronize()

    def weigh(self, size: int) -> int:
        """Bytes at the fullest moment of a step of so many samples."""
        batch = self.batch(size)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.step(batch)
            return torch.cuda.max_memory_allocated()
        with PeakMemory() as memory:
            self.step(batch)
        return self.measured.states + memory.peak

    def time(self, size: int) -> float:
        """Seconds of a step of so many samples, after one that warms up."""
        for _ in range(2):
            batch = self.batch(size)
            began = time.perf_counter()
            self.step(batch)
        return time.perf_counter() - began

    def evaluate(self) -> Dict[str, Any]:
        """Evaluate one batch as if it were all.

        Returns:
            The metrics by name, and ``seconds`` of a sample.
        """
        loop = self.runner.val_loop
        count = min(self.cfg.val_dataloader.batch_size,
                    len(loop.dataloader.dataset))
        self.runner.model.eval()
        batch = next(iter(loop.dataloader))
        synchronize()
        began = time.perf_counter()
        loop.run_iter(0, batch)
        synchronize()
        seconds = (time.perf_counter() - began) / count
        return dict(loop.evaluator.evaluate(count), seconds=seconds)
