# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Gradient accumulation with updates equal to those of larger batches.

The batches whose gradients are accumulated for one update are called a window.
"""
import copy
from typing import Any

from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler

from ...registry import HOOKS, PARAM_SCHEDULERS
from .lengths import Length, remarks
from .positions import feed_of


def by_name(value: Any) -> dict[str, Any]:
    """Return the parts of an optimizer wrapper or its schedulers by name."""
    several = isinstance(value, (dict, OptimWrapperDict))
    return dict(value.items()) if several else {'': value}


def wrappers_of(runner: Any) -> dict[str, OptimWrapper]:
    return by_name(runner.optim_wrapper)


def window_length(wrapper: Any) -> int:
    """Return ``accumulative_counts`` of an optimizer wrapper."""
    return getattr(wrapper, '_accumulative_counts', 1)


def window_is_open(runner: Any) -> bool:
    """Return whether there are accumulated gradients without an update."""
    return any(
        window_length(wrapper) > 1 and not wrapper.should_update()
        for wrapper in wrappers_of(runner).values())


def updates_of(batches: int, window: int) -> int:
    """Return the number of updates; the last window may be incomplete."""
    return -(-batches // window)


def is_iteration_based(loop: Any) -> bool:
    return hasattr(loop, 'dataloader_iterator')


def updates_per_epoch(loop: Any, window: int) -> int:
    return updates_of(len(loop.dataloader), window)


def count_updates(loop: Any, window: int) -> int:
    """Return the number of updates of the whole training."""
    if is_iteration_based(loop):
        return updates_of(loop.max_iters, window)
    return loop.max_epochs * updates_per_epoch(loop, window)


def length_of(loop: Any, window: int) -> Length:
    return Length(
        epochs=None if is_iteration_based(loop) else loop.max_epochs,
        updates=count_updates(loop, window),
        epoch_length=updates_per_epoch(loop, window),
        window=window)


def batches_ahead(loader: Any) -> int:
    """Return the number of batches of the next pass over a loader.

    A resumed epoch skips the samples that it has already used.
    """
    feed = feed_of(loader)
    if feed is None:
        return len(loader)
    draws: Any = loader.batch_sampler.sampler
    return feed.steps(len(draws) - getattr(draws, 'skip', 0))


def updates_at(loop: Any, epochs: int, iteration: int, window: int) -> int:
    """Return the number of updates before an iteration.

    Args:
        loop: Training loop.
        epochs: Number of completed epochs.
        iteration: Number of completed iterations.
        window: Length of a window, see :func:`window_length`.
    """
    if is_iteration_based(loop):
        return iteration // window
    length = len(loop.dataloader)
    left = (epochs + 1) * length - iteration  # in the current epoch
    return (epochs + 1) * updates_of(length, window) - updates_of(left, window)


def begin_windows(wrapper: OptimWrapper, done: int, end: int) -> None:
    """Set the counters of an optimizer wrapper so that it updates at ``end``.

    The last window before ``end`` averages the batches that it has.

    Args:
        wrapper: Optimizer wrapper.
        done: Number of batches before the next one.
        end: Number of batches after the last one.
    """
    wrapper._inner_count, wrapper._max_counts = done, end
    wrapper._remainder_counts = end % window_length(wrapper)


@HOOKS.register_module()
class UpdateSchedulerHook(ParamSchedulerHook):
    """mmengine's ``ParamSchedulerHook``, which counts updates of the weights.

    It differs only if ``optim_wrapper.accumulative_counts`` is above 1.
    Training then equals training with batches larger by this factor:

    * Schedulers with ``by_epoch=False`` step once per update, so their
      lengths (``end``, ``milestones``, a warm-up) count updates.
    * An epoch ends with an update, which averages the remaining batches, so
      that the checkpoint of an epoch includes all of its batches.

    It warns if lengths of schedules do not match that of the training.
    """

    def __init__(self) -> None:
        self.is_ready = False

    def before_run(self, runner: Any) -> None:
        self.before_loading(runner)

    def before_loading(self, runner: Any) -> None:
        """Count updates, once, after the Runner built the schedulers."""
        if self.is_ready or runner.param_schedulers is None:
            return
        self.is_ready = True
        configs = runner.cfg.get('param_scheduler')
        schedulers = by_name(runner.param_schedulers)
        for name, wrapper in wrappers_of(runner).items():
            window = window_length(wrapper)
            if window == 1:
                continue
            silence_count_warning(wrapper, runner.train_loop)
            config = configs.get(name, configs) if (
                name and isinstance(configs, dict)) else configs
            if config is not None:
                schedulers[name][:] = rebuild(
                    schedulers[name], config, wrapper, runner)

    def before_train(self, runner: Any) -> None:
        schedulers = by_name(runner.param_schedulers or [])
        for name, wrapper in wrappers_of(runner).items():
            length = length_of(runner.train_loop, window_length(wrapper))
            for fault, advice in remarks(schedulers.get(name, ()), length):
                runner.logger.warning(f'param_scheduler: {fault}; {advice}')

    def before_train_epoch(self, runner: Any) -> None:
        if is_iteration_based(runner.train_loop):
            return  # mmengine sets the counters for the whole training
        for wrapper in wrappers_of(runner).values():
            if window_length(wrapper) > 1:
                begin_windows(wrapper, 0,
                              batches_ahead(runner.train_dataloader))

    def after_train_iter(self,
                         runner: Any,
                         batch_idx: int,
                         data_batch: Any = None,
                         outputs: Any = None) -> None:
        if runner.param_schedulers is None:
            return
        wrappers = wrappers_of(runner)
        for name, schedulers in by_name(runner.param_schedulers).items():
            wrapper = wrappers[name]
            if window_length(wrapper) > 1 and not wrapper.should_update():
                continue
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()


def silence_count_warning(wrapper: OptimWrapper, loop: Any) -> None:
    """Avoid mmengine's warning about lost gradients on resume.

    None are lost: windows start with each epoch.
    """
    initialize = wrapper.initialize_count_status

    def initialize_count_status(model: Any, done: int, end: int) -> None:
        if is_iteration_based(loop):
            initialize(model, done, end)
        else:  # windows begin with each epoch
            initialize(model, 0, end)

    wrapper.initialize_count_status = initialize_count_status


def rebuild(schedulers: list[_ParamScheduler], configs: Any,
            wrapper: OptimWrapper, runner: Any) -> list[_ParamScheduler]:
    """Rebuild schedulers with lengths in updates instead of iterations.

    Args:
        schedulers: Schedulers built by the Runner, which counts iterations.
        configs: Configs of the schedulers.
        wrapper: Optimizer wrapper of the schedulers.
        runner: Runner with the training loop.
    """
    loop, window = runner.train_loop, window_length(wrapper)
    total = count_updates(loop, window)
    groups = wrapper.param_groups
    resumed = [s.state_dict() for s in schedulers] if loop.iter else []
    current = [dict(group) for group in groups]
    for group in groups:  # restore the values before schedulers were built
        for key in [k for k in group if k.startswith('initial_')]:
            group[key[len('initial_'):]] = group.pop(key)
    built = []
    configs = configs if isinstance(configs, (list, tuple)) else [configs]
    for config in configs:
        config = copy.deepcopy(dict(config))
        by_epoch = config.get('by_epoch', True)
        config.setdefault('end', loop.max_epochs if by_epoch else total)
        built.append(
            PARAM_SCHEDULERS.build(
                config,
                default_args=dict(
                    optimizer=wrapper,
                    epoch_length=updates_per_epoch(loop, window))))
    for scheduler, state in zip(built, resumed):  # a FlexibleRunner's order
        scheduler.load_state_dict(state)
    if resumed:
        for group, values in zip(groups, current):
            group.update(values)
    return built
