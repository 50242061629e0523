# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Resume schedules with the lengths and learning rates of the config.

mmengine restores schedules with the lengths and learning rates of the run that
wrote the checkpoint. If they differ from the config, the schedules of the
config are stepped to the position of the checkpoint instead.
"""
from collections.abc import Mapping
from copy import copy
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import _ParamScheduler

from ...registry import HOOKS
from .accumulation import (
    UpdateSchedulerHook,
    count_updates,
    is_iteration_based,
    updates_at,
    updates_per_epoch,
    window_length,
)
from .lengths import follows_metrics

# State of a scheduler that is not a setting.
RUNNING = {'last_step', '_global_step', '_last_value', 'verbose'}
Schedulers = list[_ParamScheduler]
Groups = list[dict[str, Any]]


class Rates:
    """Parameter groups of an optimizer without their parameters.

    Args:
        groups: Parameter groups. Equal ones are merged.

    Attributes:
        index: Index of the merged group for each group of the optimizer.
    """

    def __init__(self, groups: Groups):
        keys = [tuple(sorted((k, repr(v)) for k, v in group.items()
                             if k != 'params')) for group in groups]
        self.first = {key: keys.index(key) for key in keys}
        order = list(self.first)
        self.index = [order.index(key) for key in keys]
        self.param_groups = [dict(groups[i], params=[])
                             for i in self.first.values()]
        self._global_step = 0  # without it, schedulers warn

    def step(self):
        """Do nothing; schedulers check for the attribute below."""

    step._with_counter = True  # type: ignore[attr-defined]

    def attach(self, scheduler: _ParamScheduler) -> _ParamScheduler:
        """Return a copy of a scheduler that steps these groups."""
        scheduler = copy(scheduler)
        scheduler.optimizer = self
        scheduler.base_values = [
            scheduler.base_values[i] for i in self.first.values()]
        return scheduler

    def state(self, scheduler: _ParamScheduler,
              base_values: list[float]) -> dict[str, Any]:
        """Return the state of an attached copy for all groups."""
        last = [scheduler._last_value[i] for i in self.index]
        return dict(scheduler.state_dict(), base_values=base_values,
                    _last_value=last)


def replay(schedulers: Schedulers, epochs: int, steps: int,
           epoch_length: int):
    """Step schedulers as the hook does during training.

    Args:
        schedulers: Schedulers at step 0.
        epochs: Number of completed epochs.
        steps: Number of updates of the weights.
        epoch_length: Number of updates per epoch.
    """
    by_epoch = [s for s in schedulers if s.by_epoch]
    by_iter = [s for s in schedulers if not s.by_epoch]
    for _ in range(epochs):
        for _ in range(min(epoch_length, steps)):
            step_all(by_iter)
        step_all(by_epoch)
        steps = max(steps - epoch_length, 0)
    for _ in range(steps):
        step_all(by_iter)


def step_all(schedulers: Schedulers):
    for scheduler in schedulers:
        scheduler.step()


def settings(state: Mapping) -> dict[str, Any]:
    return {k: v for k, v in state.items()
            if k not in RUNNING and k != 'optimizer'}


def short(value: Any) -> str:
    """Format a value; for a list, its first element and its length."""
    if isinstance(value, list) and len(value) > 1:
        return f'{value[0]:.6g} (first of {len(value)})'
    value = value[0] if isinstance(value, list) and value else value
    return f'{value:.6g}' if isinstance(value, float) else f'{value}'


def differences(schedulers: Schedulers, saved: list[Mapping]) -> list[str]:
    """Describe how schedules of the config differ from saved ones."""
    if len(schedulers) != len(saved):
        return [f'{len(saved)} -> {len(schedulers)} schedulers']
    found = []
    for scheduler, state in zip(schedulers, saved):
        if follows_metrics(scheduler):
            continue  # its settings change during training
        now, then = settings(scheduler.state_dict()), settings(state)
        for name in sorted(now.keys() | then.keys()):
            if now.get(name) != then.get(name):
                found.append(f'{type(scheduler).__name__}.{name} '
                             f'{short(then.get(name))} -> '
                             f'{short(now.get(name))}')
    return found


def set_rates(saved: dict[str, Any], rates: Rates, names: list[str]):
    """Write rates to the parameter groups of a saved optimizer."""
    groups = list(saved['param_groups'])
    if saved.get('base_param_settings') is not None:
        groups.append(saved['base_param_settings'])
    for group, i in zip(groups, rates.index):
        for name in names:
            for key in (name, f'initial_{name}'):
                if key in rates.param_groups[i]:
                    group[key] = rates.param_groups[i][key]


def realign(optim_wrapper: Any, schedulers: Schedulers,
            checkpoint: dict[str, Any], epochs: int, steps: int,
            epoch_length: int):
    """Replace the schedules in a checkpoint by those of the config.

    Args:
        optim_wrapper: Optimizer wrapper of the config, not yet restored.
        schedulers: Schedulers of the config, not yet restored.
        checkpoint: Content of a checkpoint, changed in place.
        epochs: Number of completed epochs.
        steps: Number of updates of the weights.
        epoch_length: Number of updates per epoch.
    """
    rates = Rates(optim_wrapper.param_groups)
    copies = [rates.attach(s) for s in schedulers]
    replay(copies, epochs, steps, epoch_length)
    checkpoint['param_schedulers'] = [
        rates.state(copied, s.base_values)
        for copied, s in zip(copies, schedulers)]
    # Schedulers of momentum set Adam's betas.
    set_rates(checkpoint['optimizer'], rates,
              ['lr', 'betas', *(s.param_name for s in schedulers)])


def steps_at(runner: Any, epochs: int, iteration: int) -> tuple[int, int, int]:
    """Return epochs and steps of schedulers, and the steps per epoch.

    mmengine's hook steps once per iteration, ours once per update.
    """
    loop = runner.train_loop
    by_update = any(isinstance(h, UpdateSchedulerHook) for h in runner.hooks)
    window = window_length(runner.optim_wrapper) if by_update else 1
    if is_iteration_based(loop):
        epochs = 0
    return (epochs, updates_at(loop, epochs, iteration, window),
            max(updates_per_epoch(loop, window), 1))


def kept_schedules(schedulers: Any, saved: Any) -> str:
    """Describe how schedules of several optimizers differ from saved ones.

    mmengine restores them as they are in the checkpoint.
    """
    if not (isinstance(schedulers, dict) and isinstance(saved, dict)):
        return ''
    changes = [f'{name}: {change}' for name, own in schedulers.items()
               for change in differences(own, saved.get(name) or [])]
    return ('schedules of several optimizers are kept as in the checkpoint, '
            f'also where the config differs: {", ".join(changes)}'
            ) if changes else ''


def follow_config(runner: Any, checkpoint: dict[str, Any], iteration: int,
                  is_moved: bool) -> str:
    """Replace schedules in a checkpoint that differ from the config.

    Args:
        runner: Runner whose schedulers and optimizer are not yet restored.
        checkpoint: Content of a checkpoint, changed in place.
        iteration: Iteration at which the training continues.
        is_moved: Whether this differs from the iteration of the checkpoint.

    Returns:
        Description of the change, '' if nothing has changed.
    """
    schedulers = runner.param_schedulers or []
    saved = checkpoint.get('param_schedulers') or []
    optimizer = checkpoint['optimizer']
    if isinstance(schedulers, dict) or 'param_groups' not in optimizer:
        return kept_schedules(schedulers, saved)
    groups = runner.optim_wrapper.optimizer.param_groups
    if len(groups) != len(optimizer['param_groups']):
        return ''  # PyTorch raises an error
    changes = differences(schedulers, saved)
    if not any(s.param_name == 'lr' for s in schedulers):
        changes += [
            f"learning rate {short(then['lr'])} -> {short(now['lr'])}"
            for now, then in zip(groups, optimizer['param_groups'])
            if now['lr'] != then['lr']][:1]
    if not changes and not is_moved:
        return ''
    waiting = [type(s).__name__ for s in schedulers if follows_metrics(s)]
    if waiting:
        return (f'{waiting[0]} follows metrics, so all schedules and rates '
                'are kept as in the checkpoint, also where the config '
                f'differs: {", ".join(changes) or "position"}')
    realign(runner.optim_wrapper, schedulers, checkpoint,
            *steps_at(runner, checkpoint['meta']['epoch'], iteration))
    return ('schedules follow the config at the position of the checkpoint'
            f'{": " if changes else ""}{", ".join(changes)}')


@HOOKS.register_module()
class ScaleAccumulatedLRHook(Hook):
    """Scale the learning rate of ``auto_scale_lr`` by ``accumulative_counts``.

    mmengine scales by the number of samples per iteration. With
    ``accumulative_counts``, an update uses the samples of several iterations.
    """
    priority = 'VERY_HIGH'

    def __init__(self):
        self.is_done = False

    def before_run(self, runner):
        self.before_loading(runner)

    def before_loading(self, runner):
        """Scale once, after schedulers are built and before anything loads."""
        counts = window_length(runner.optim_wrapper)
        if self.is_done or counts == 1:
            return
        self.is_done = True
        loop = runner.train_loop
        if is_iteration_based(loop):
            runner.logger.warning(
                f'max_iters={loop.max_iters} iterations make '
                f'{count_updates(loop, counts)} updates, as '
                f'accumulative_counts={counts}')
        if (runner.cfg.get('auto_scale_lr') or {}).get('enable'):
            scale_rates(runner.optim_wrapper, runner.param_schedulers, counts)
            runner.logger.info(
                f'accumulative_counts={counts}: an update sees {counts} '
                'batches, so the learning rate is scaled by another '
                f'{counts}')


def scale_rates(wrapper: Any, schedulers: Any, factor: int):
    """Multiply learning rates of an optimizer and schedulers at step 0."""
    for group in wrapper.optimizer.param_groups:
        for key in ('lr', 'initial_lr'):
            if key in group:
                group[key] *= factor
    for scheduler in schedulers or ():
        if scheduler.param_name == 'lr':
            scheduler.base_values = [
                group['initial_lr'] for group in wrapper.param_groups]
            scheduler._last_value = [
                group['lr'] for group in wrapper.param_groups]
