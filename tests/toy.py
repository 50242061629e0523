# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A training of milliseconds with all kinds of random numbers in it."""
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import CONFIGS, ROOT, runs
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.dist import all_reduce, get_rank, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

if os.environ.get('TOY_DOUBLE'):  # so that rounding cannot add up
    torch.set_default_dtype(torch.float64)
SAMPLES = 12
BATCH = 2
# For processes that import this file: one thread each, and nothing of a
# launcher that may have started the tests.
ENV = {k: v for k, v in os.environ.items()
       if k not in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR',
                    'MASTER_PORT')}
ENV.update(PYTHON=sys.executable, OMP_NUM_THREADS='1', PREFLIGHT='0',
           CUDA_VISIBLE_DEVICES='', PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")


@DATASETS.register_module()
class ToyDataset(BaseDataset):
    """Numbers that are augmented by all three generators.

    Args:
        broken: Sample that fails, in the way of ``fault``.
        fault: ``'error'``, or ``'kill'`` for a worker that dies.
    """

    def __init__(self, broken: int = -1, fault: str = 'error', **kwargs):
        self.broken, self.fault = broken, fault
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(x=float(i), img_path=f'{i}.jpg', width=2 + i % 3,
                     height=3) for i in range(SAMPLES)]  # yapf: disable

    def prepare_data(self, idx: int):
        if idx == self.broken:
            if self.fault == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError('image file\n is truncated')
        noise = 0.
        if not self.test_mode:
            noise = random.random() + np.random.rand() + torch.rand(()).item()
        return dict(inputs=torch.full((1, 4, 4), idx / SAMPLES + noise))


@MODELS.register_module()
class ToyModel(BaseModel):
    """A convolution, a norm and dropout.

    Args:
        spoil_at: Forward pass, counted from 0, whose loss is NaN.
        ballast: Numbers that make checkpoints large.
        drop: Rate of dropout.
        seconds: Duration of a forward pass, at least.
        double: In double precision. Adam divides by the size of gradients,
            so the rounding of those that should be zero grows to steps.
    """

    def __init__(self, spoil_at: int = -1, ballast: int = 0,
                 drop: float = .2, double: bool = False,
                 seconds: float = 0.):
        super().__init__()
        self.register_buffer('ballast', torch.zeros(ballast))
        self.layers = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(drop))
        self.steps, self.spoil_at = 0, spoil_at
        self.seconds = seconds
        if double:
            self.double()

    def forward(self, inputs, mode: str = 'tensor'):
        time.sleep(self.seconds)
        x = torch.stack(list(inputs)).to(self.layers[0].weight)
        x = self.layers(x)
        if mode == 'predict':
            return [dict(value=v.mean().item()) for v in x]
        loss = (x.mean((1, 2, 3)) - 1).square().mean()
        if self.steps == self.spoil_at:
            loss = loss * float('nan')
        self.steps += 1
        return dict(loss=loss)


@METRICS.register_module()
class ToyMetric(BaseMetric):

    def process(self, data_batch: Any, data_samples: Any):
        self.results += [s['value'] for s in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(value=float(np.sum(results)), count=len(results))


def kill_second(runner):
    if get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class CallAt(Hook):
    """Call a function before an iteration, or before a batch of val."""
    functions: dict[str, Callable] = dict(kill_second=kill_second)

    def __init__(self, name: str, at: int, where: str = 'train'):
        self.name, self.at, self.where = name, at, where

    def before_train_iter(self, runner, *args, **kwargs):
        if self.where == 'train' and runner.iter == self.at:
            self.functions[self.name](runner)

    def before_val_iter(self, runner, *args, **kwargs):
        if self.where == 'val' and runner.iter == self.at:
            self.functions[self.name](runner)


@HOOKS.register_module()
class RecordSteps(Hook):
    """Write the loss of each step and the gradients of the first to a file.

    The loss is the mean over processes.
    """

    def __init__(self, path: str):
        self.path = path
        self.losses: list[float] = []
        self.gradients: dict[str, torch.Tensor] = {}

    def before_train(self, runner):
        names = {id(p): n.replace('module.', '')
                 for n, p in runner.model.named_parameters()}

        def keep(optimizer, *_):
            if not self.gradients:
                self.gradients = {
                    names[id(p)]: p.grad.clone()
                    for group in optimizer.param_groups
                    for p in group['params'] if p.grad is not None}

        runner.optim_wrapper.optimizer.register_step_pre_hook(keep)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        loss = outputs['loss'].detach().clone()
        all_reduce(loss, 'mean')
        self.losses.append(loss.item())

    def after_train(self, runner):
        if is_main_process():
            torch.save(dict(losses=self.losses, gradients=self.gradients),
                       self.path)


class QuietRunner(Runner):
    """Without the second that it takes to describe the machine."""

    def _log_env(self, env_cfg: dict):
        pass


def toy_config(work_dir: Path, by_epoch: bool = True, workers: int = 0,
               **options: Any) -> Config:
    """Three passes of 6 iterations, a checkpoint and an evaluation each."""
    base = Config.fromfile(CONFIGS / '_base_/runtime.py')
    hooks = base.default_hooks
    hooks.checkpoint.update(
        interval=1 if by_epoch else 6,
        by_epoch=by_epoch,
        save_best='value',
        rule='greater')
    hooks.logger.interval = 1
    loader = dict(
        batch_size=BATCH, num_workers=workers,
        persistent_workers=workers > 0,
        dataset=dict(type='ToyDataset'),
        sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler',
                     shuffle=True))  # yapf: disable
    train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1) if (
        by_epoch) else dict(by_epoch=False, max_iters=18, val_interval=6)
    cfg = Config(
        dict(
            base._cfg_dict,
            default_scope='mmengine',
            model=dict(type='ToyModel'),
            train_dataloader=loader,
            val_dataloader=dict(
                loader, num_workers=0, persistent_workers=False,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(type='ToyDataset', test_mode=True)),
            val_evaluator=dict(type='ToyMetric'),
            train_cfg=train_cfg,
            val_cfg=dict(),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='Adam', lr=.05)),
            param_scheduler=[
                dict(type='LinearLR', by_epoch=False, end=9),
                dict(type='MultiStepLR', milestones=[2], by_epoch=by_epoch)
            ],
            log_processor=dict(by_epoch=by_epoch),
            randomness=dict(seed=0, deterministic=True),
            custom_hooks=[],
            work_dir=str(work_dir),
            experiment_name=f'toy_{next(runs)}'))  # yapf: disable
    cfg.env_cfg.mp_cfg.mp_start_method = 'fork'
    cfg.merge_from_dict(options)
    return cfg


def toy_run(work_dir: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Train and give the weights at the end."""
    runner = QuietRunner.from_cfg(toy_config(work_dir, **options))
    runner.train()
    return runner.model.state_dict()
