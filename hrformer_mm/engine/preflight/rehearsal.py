# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Run and measure the first steps of a training with few samples.

Schedules, hooks, data and precision are those of the training, only the batch
is smaller. The run stops after a few steps and one evaluation, and leaves no
files behind.
"""
import math
import time
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...utils.config import bare_name
from ...utils.costs import PeakMemory, nbytes, tensors_of

SAMPLES = 2  # in a step; some batch norms fail with a single one
STEPS = 2  # the first one warms up, the second one is timed
NEVER = 10**9  # an epoch or iteration that no training reaches


class Enough(Exception):
    """Exception that ends the training loop."""


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


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
    """Return the config with small batches, no pretraining or checkpoints."""
    cfg = deepcopy(cfg)
    without_pretrained(cfg.model)
    cfg.update(load_from=None, resume=False, work_dir=work_dir,
               launcher='none', experiment_name=f'rehearsal_{time.time_ns()}')
    for key in ('strategy', 'model_wrapper_cfg'):  # unused by one process
        cfg.pop(key, None)
    for name in ('train_dataloader', 'val_dataloader'):
        loader = cfg.get(name)
        if loader:
            loader.batch_size = min(loader.batch_size, SAMPLES)
            # One worker shows whether data can be sent between processes;
            # more only take longer.
            loader.num_workers = min(loader.get('num_workers', 0), 1)
            if not loader.num_workers:
                loader.persistent_workers = False
                loader.pop('prefetch_factor', None)
    # A few samples must not end the training before the steps are done.
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


class Rehearsal(Hook):
    """The beginning of a training, and the hook that measures and ends it.

    Args:
        cfg: Config adapted to this machine, with its data available; it is
            not changed.
        work_dir: Empty folder for output of the frameworks.
    """
    priority = 'LOWEST'

    def __init__(self, cfg: Config, work_dir: str):
        self.cfg = shortened(cfg, work_dir)
        self.whole = cfg.train_dataloader.batch_size
        self.samples: int = self.cfg.train_dataloader.batch_size
        self.seconds = math.nan  # of a step, without loading data
        self.states = 0  # bytes of weights and optimizer, for any batch
        self.peak, self.slope = 0, 0.  # bytes, and more for each sample
        self.losses: list[float] = []  # of each step
        self.runner: Any = None  # a Runner, after train()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        synchronize()
        self.began = time.perf_counter()

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        synchronize()
        self.seconds = time.perf_counter() - self.began
        self.losses.append(float(outputs['loss']))
        if len(self.losses) == STEPS:
            raise Enough

    def train(self) -> 'Rehearsal':
        """Run :data:`STEPS` steps, then measure memory at two batch sizes.

        Returns:
            This rehearsal.

        Raises:
            Exception: Any error of the training.
        """
        self.runner = Runner.from_cfg(self.cfg)
        self.runner.register_hook(self)
        try:
            self.runner.train()
        except Enough:
            pass
        model, optimizer = self.runner.model, self.runner.optim_wrapper
        self.states = nbytes([
            *model.parameters(), *model.buffers(),
            *tensors_of(optimizer.state_dict()['state'])])
        self.peak = self.weigh(self.samples)
        more = min(2 * self.samples, self.whole) - self.samples
        if more:
            self.slope = (self.weigh(self.samples + more) - self.peak) / more
        return self

    def memory(self, batch: int) -> int:
        """Estimate the bytes for a batch of a size, by a linear model."""
        return self.peak + round(self.slope * (batch - self.samples))

    def batch(self, size: int) -> Any:
        """Return a training batch of a given size, made of few samples."""
        loader = self.runner.train_dataloader
        few = [loader.dataset[i % len(loader.dataset)]
               for i in range(self.samples)]
        return loader.collate_fn(
            [deepcopy(few[i % len(few)]) for i in range(size)])

    def step(self, batch: Any):
        self.runner.model.train()
        self.runner.model.train_step(batch, self.runner.optim_wrapper)
        synchronize()

    def weigh(self, size: int) -> int:
        """Return the peak memory of a step in bytes, for a batch size."""
        batch = self.batch(size)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.step(batch)
            return torch.cuda.max_memory_allocated()
        with PeakMemory() as memory:
            self.step(batch)
        return self.states + memory.peak

    def time(self, size: int) -> float:
        """Return the seconds of a step for a batch size, after a warmup."""
        for _ in range(2):
            batch = self.batch(size)
            began = time.perf_counter()
            self.step(batch)
        return time.perf_counter() - began

    def evaluate(self) -> dict[str, Any]:
        """Evaluate one batch as if it were the whole dataset.

        Returns:
            The metrics by name, and ``seconds`` for each sample.
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
