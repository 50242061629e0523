# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Find schedules that do not match the length of the training.

By default the Runner ends a schedule with the training. Explicit lengths, such
as ``end``, ``T_max`` or ``milestones``, do not follow changes of
``train_cfg.max_epochs`` and ``train_cfg.max_iters``.
"""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler import param_scheduler as mm

from ...registry import PARAM_SCHEDULERS
from ..schedulers import WarmupLR

ENDLESS = 10**9  # mmengine's default for the end of a schedule
TOLERANCE = .01  # relative, for recipes whose cosine is off by one
# Schedules that should end with the training.
WHOLE = (mm.PolyParamScheduler, mm.CosineAnnealingParamScheduler,
         mm.ExponentialParamScheduler, mm.StepParamScheduler,
         mm.OneCycleParamScheduler, mm.LinearParamScheduler, WarmupLR)


class Remark(NamedTuple):
    """Mismatch between a schedule and the training, and advice to fix it."""
    fault: str
    advice: str


@dataclass(frozen=True)
class Length:
    """Length of a training run.

    Attributes:
        epochs: Number of epochs, or None if training counts iterations.
        updates: Number of updates of the weights.
        epoch_length: Number of updates per epoch.
        window: Number of iterations per update.
    """
    epochs: int | None
    updates: int
    epoch_length: int
    window: int = 1

    @property
    def key(self) -> str:
        return f"train_cfg.max_{'epochs' if self.epochs else 'iters'}"

    @property
    def text(self) -> str:
        name = 'iterations' if self.window == 1 else 'updates'
        return (f'{self.epochs} epochs of {self.epoch_length} {name}'
                if self.epochs else f'{self.updates} {name}')

    def total(self, scheduler: _ParamScheduler) -> int:
        """Return the length of the training in steps of a scheduler."""
        return self.epochs or 0 if scheduler.by_epoch else self.updates

    def unit(self, scheduler: _ParamScheduler) -> str:
        if scheduler.by_epoch:
            return 'epochs'
        return 'iterations' if self.window == 1 else 'updates'

    def end(self, scheduler: _ParamScheduler) -> int:
        """Return the end of a scheduler in updates."""
        end = min(scheduler.end, ENDLESS)
        return end * self.epoch_length if scheduler.by_epoch else end


def is_warm_up(scheduler: _ParamScheduler) -> bool:
    return isinstance(scheduler, mm.ConstantParamScheduler) or (
        isinstance(scheduler, mm.LinearParamScheduler)
        and scheduler.start_factor < scheduler.end_factor)


def follows_metrics(scheduler: _ParamScheduler) -> bool:
    return getattr(scheduler, 'need_val_args', False)


def remarks(schedulers: Sequence[_ParamScheduler],
            length: Length) -> Iterator[Remark]:
    """Yield mismatches between schedules and the length of the training.

    Args:
        schedulers: Schedulers of one optimizer.
        length: Length of the training.
    """
    for scheduler in schedulers:
        if follows_metrics(scheduler):
            continue
        name, total = type(scheduler).__name__, length.total(scheduler)
        if scheduler.by_epoch and not length.epochs:
            yield Remark(
                f'{name} counts epochs, but training counts iterations, so '
                'it never steps', 'set by_epoch=False and its lengths in '
                'iterations')
        elif scheduler.begin >= total:
            yield Remark(
                f'{name} begins after {scheduler.begin} '
                f'{length.unit(scheduler)}, but training makes {total}',
                f'set an earlier begin, or a larger {length.key}')
        else:
            yield from remarks_of(scheduler, schedulers, length)


def remarks_of(scheduler: _ParamScheduler,
               schedulers: Sequence[_ParamScheduler],
               length: Length) -> Iterator[Remark]:
    """Yield mismatches of a scheduler that is active during training."""
    name, unit = type(scheduler).__name__, length.unit(scheduler)
    total, end = length.total(scheduler), scheduler.end
    last = min(end, total)
    advice = f'remove {{}}, which then follows {length.key}'
    if isinstance(scheduler, mm.MultiStepParamScheduler):
        late = sorted(m for m in scheduler.milestones
                      if scheduler.begin + m >= last)
        if late:
            yield Remark(
                f'{name} does not reach its milestones {late}, as it ends '
                f'after {last} {unit}', 'set earlier milestones, or a larger '
                f'{length.key}')
    elif total < end < ENDLESS and isinstance(
            scheduler, (*WHOLE, mm.ConstantParamScheduler)):
        yield Remark(
            f'{name} ends after {end} {unit}, but training makes {total}, so '
            'it is cut off', 'set an earlier end, or a larger '
            f'{length.key}' if is_warm_up(scheduler) else advice.format('end'))
    elif end < total and is_last(scheduler, schedulers, length):
        yield Remark(
            f'{name} ends after {end} {unit}, but training makes {total}, so '
            f'{scheduler.param_name} stays the same from there on',
            advice.format('end'))
    yield from period_remarks(scheduler, last - scheduler.begin, unit, advice)


def period_remarks(scheduler: _ParamScheduler, span: int, unit: str,
                   advice: str) -> Iterator[Remark]:
    """Yield periods and warm-ups that differ from the steps of a scheduler."""
    name = type(scheduler).__name__
    for key in ('T_max', 'total_steps'):
        period = getattr(scheduler, key, None)
        if not period or abs(period - span) <= TOLERANCE * span:
            continue
        if scheduler.end not in (span + scheduler.begin, ENDLESS):
            continue  # reported above: its end does not match
        result = ('does not reach its lowest value' if period > span else
                  'rises again')
        yield Remark(
            f'{name} has {key}={period} {unit}, but makes {span}, so '
            f'{scheduler.param_name} {result}', advice.format(key))
    warmup = getattr(scheduler, 'warmup', 0)
    if isinstance(scheduler, WarmupLR) and warmup >= span:
        yield Remark(
            f'{name} warms up for {warmup} {unit}, but makes {span}, so the '
            'learning rate never falls', 'set a smaller warmup')


def is_last(scheduler: _ParamScheduler,
            schedulers: Sequence[_ParamScheduler], length: Length) -> bool:
    """Return whether a schedule should end with the training."""
    if not isinstance(scheduler, WHOLE) or is_warm_up(scheduler):
        return False
    return all(
        length.end(other) <= length.end(scheduler) for other in schedulers
        if other.param_name == scheduler.param_name)


def build(configs: Any, lr: float, length: Length) -> list[_ParamScheduler]:
    """Build schedulers of a config as the Runner does, without a model.

    Args:
        configs: ``param_scheduler`` of a config, for one optimizer.
        lr: Learning rate.
        length: Length of the training.
    """
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=lr, momentum=.9)
    built = []
    for config in configs if isinstance(configs, (list, tuple)) else [configs]:
        config = dict(config)
        end = length.epochs or 1 if config.get('by_epoch', True) else (
            length.updates)
        config.setdefault('end', end)
        defaults: dict[str, Any] = dict(
            optimizer=optimizer, epoch_length=length.epoch_length)
        built.append(PARAM_SCHEDULERS.build(config, default_args=defaults))
    return built
