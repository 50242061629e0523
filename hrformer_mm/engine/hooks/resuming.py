# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Resume training exactly, as if it had not been interrupted.

mmengine restores weights and optimizer, but random numbers and an interrupted
epoch start again, and iteration-based training reads all former data again.
Here random numbers are derived from the seed and the position in the data, so
only the position must be restored.
"""
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ...registry import HOOKS
from .accumulation import is_iteration_based, window_length
from .positions import (
    ORIENTED,
    Draw,
    Feed,
    NumberedSampler,
    Position,
    check_filled,
    feed_of,
    name_of,
    sampler_of,
)
from .schedules import follow_config
from .starting import START, STATE, check_resumable, newest_checkpoint


def seed_all(*key: int):
    """Seed Python, NumPy and PyTorch by a few integers >= 0."""
    first, second, third = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(first))
    np.random.seed(second)
    # torch.manual_seed inspects the stack while CUDA is not initialized.
    torch.default_generator.manual_seed(int(third))
    if torch.cuda.is_initialized() and get_worker_info() is None:
        torch.cuda.manual_seed_all(int(third))


class SeededFetch:
    """Fetch a batch with random numbers derived from the draws.

    It replaces ``dataset.__getitems__``, which PyTorch calls with the draws of
    the batch sampler.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __call__(self, draws: list[Draw]) -> list[Any]:
        return [self.fetch(int(draw), draw.epoch, draw.number)
                for draw in draws]  # yapf: disable

    def fetch(self, index: int, epoch: int, number: int) -> Any:
        """Return one sample.

        Raises:
            ValueError: If loading it fails. Names its file.
        """
        seed_all(self.seed, epoch, number)
        try:
            return self.dataset[index]
        except Exception as error:
            text = ' '.join(f'{type(error).__name__} {error}'.split())
            raise ValueError(f'training sample {index}{self.path(index)} '
                             f'cannot be used: {text}') from error

    def path(self, index: int) -> str:
        with suppress(Exception):  # the original error is reported instead
            dataset: Any = self.dataset
            return f" ({dataset.get_data_info(index)['img_path']})"
        return ''


class Skipping:
    """Iterator that yields None ``count`` times before its first item."""

    def __init__(self, iterator: Iterator, count: int):
        self.iterator, self.count = iterator, count

    def __iter__(self) -> 'Skipping':
        return self

    def __next__(self) -> Any:
        if self.count:
            self.count -= 1
            return None
        return next(self.iterator)


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed run equal to one that was never interrupted.

    * ``--resume`` uses the newest readable checkpoint and skips damaged ones
      with a warning. Without a checkpoint, training starts from
      ``load_from``. Weights without training state raise an error.
    * Random numbers of a sample are derived from the seed, the epoch and its
      number in the epoch, those of a step from the seed and the iteration.
      They do not depend on the number of workers or processes.
    * Training continues inside an epoch, without reading former data.
    * If the number of processes, the batch size or the length changes, the
      position in epochs and samples is taken from the checkpoint, lengths and
      learning rates from the config. A warning reports it.
    * An evaluation that was due at the checkpoint is repeated, as the run may
      have been killed during it.

    Random numbers and positions require a loader without a custom batch
    sampler, but that of MMDetection for orientations works in epochs. With
    others, a resumed epoch starts again; a warning reports it.
    """
    priority = 'LOWEST'  # after all other hooks

    def __init__(self):
        self.state: dict[str, Any] = {}  # our state in the checkpoint
        self.feed: Feed | None = None
        # Epoch, an iteration at or before its current one, and its position.
        self.origin: tuple[int, int, Position] = (-1, 0, (0, 0))

    def before_run(self, runner):
        if runner.train_loop is not None:
            check_filled(runner.train_dataloader)
        self.before_loading(runner)

    def before_loading(self, runner):
        """Choose the checkpoint in the first process for all processes."""
        if not runner._resume or runner._load_from is not None:
            return
        found: list[Any] = [None, None]
        if get_dist_info()[0] == 0:
            try:
                found[0] = newest_checkpoint(runner.work_dir, runner.logger)
            except ValueError as error:
                found[1] = error
        broadcast_object_list(found)
        if found[1]:
            raise found[1]
        runner._load_from = found[0]
        if found[0] is None:
            runner._resume = False
            runner._load_from = runner.cfg.get(START)
            runner.logger.info(
                f'no checkpoint in {runner.work_dir}: training starts from '
                f'{runner._load_from or "scratch"}')

    def after_load_checkpoint(self, runner, checkpoint: dict):
        self.state = {}
        if not runner._resume:
            return
        check_resumable(checkpoint, runner._load_from)
        self.state = checkpoint.get(STATE, {})
        self.adopt(runner, checkpoint)

    def adopt(self, runner, checkpoint: dict):
        """Convert the position of a checkpoint to the lengths of this run.

        Raises:
            ValueError: If it is beyond the end of the training.
        """
        loop, meta = runner.train_loop, checkpoint['meta']
        self.feed = feed_of(runner.train_dataloader)
        by_iter = is_iteration_based(loop)
        check_kind(self.state, by_iter)
        former = meta['iter']
        if self.feed is not None:
            position = self.position(meta, by_iter)
            meta['iter'] = self.feed.iteration(position)
        check_end(loop, meta, by_iter, former)
        is_moved = meta['iter'] != former
        followed = follow_config(runner, checkpoint, meta['iter'], is_moved)
        remarks = [*self.batches(runner, former, meta['iter']), followed]
        if self.feed is None:
            runner.logger.warning(unknown_position(loop))
        text = '; '.join(filter(None, remarks))
        if text:
            runner.logger.warning(f'resumed with another config: {text}')

    def position(self, meta: dict, by_iter: bool) -> Position:
        """Return the position in the data of a checkpoint."""
        if not by_iter:
            return meta['epoch'], self.state.get('draws', 0)
        if 'passes' in self.state:
            return self.state['passes'], self.state['draws']
        assert self.feed is not None
        return self.feed.advance((0, 0), meta['iter'])

    def batches(self, runner, former: int, now: int) -> Iterator[str]:
        """Describe changes of the batch of an iteration and of an update."""
        if former != now:
            yield (f'iteration {former} of the checkpoint is iteration {now} '
                   'of this run')
        then, here = self.state.get('update'), update_size(runner, self.feed)
        if then and here and then != here:
            scaled = (runner.cfg.get('auto_scale_lr') or {}).get('enable')
            yield (f'an update sees {here} samples instead of {then}' + (
                '' if scaled else ', --auto-scale-lr would scale the '
                'learning rate'))
            if self.state.get('draws') and name_of(
                    runner.train_dataloader.batch_sampler) == ORIENTED:
                yield ('images are batched by orientation anew, so some of '
                       'this epoch may be used twice')

    def before_save_checkpoint(self, runner, checkpoint: dict):
        checkpoint[STATE] = dict(seed=self.seed)
        if self.feed is None:
            return
        meta = checkpoint['meta']
        by_iter = is_iteration_based(runner.train_loop)
        epoch, iteration, position = self.origin
        passes, draws = self.feed.advance(position, meta['iter'] - iteration)
        if by_iter:
            checkpoint[STATE]['passes'] = passes
        elif meta['epoch'] != epoch:
            draws = 0
        elif passes > epoch:  # saved after the last iteration of its epoch
            draws = self.feed.length * self.feed.world
        checkpoint[STATE].update(
            # Number of samples that all processes drew in the current pass.
            draws=draws,
            update=update_size(runner, self.feed))

    def before_train(self, runner):
        loop, loader = runner.train_loop, runner.train_dataloader
        self.seed = self.state.get('seed', data_seed(runner, loader))
        self.feed = feed_of(loader)
        by_iter = is_iteration_based(loop)
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        if self.feed is not None:
            numbered = seed_samples(loader, self.seed)
            position = self.position(meta, by_iter)
            if by_iter:
                go_to(loop, loader, numbered, position)
                self.origin = (0, runner.iter, position)
            else:
                numbered.skip = position[1] // numbered.world
        if runner.iter and (by_iter or not self.state.get('draws')):
            evaluate_if_due(runner)

    def before_train_epoch(self, runner):
        loop, loader = runner.train_loop, runner.train_dataloader
        if is_iteration_based(loop) or self.feed is None:
            return  # the whole training is one epoch
        draws = loader.batch_sampler.sampler.skip * self.feed.world
        self.origin = runner.epoch, runner.iter, (runner.epoch, draws)

    def before_train_iter(self, runner, *args, **kwargs):
        seed_all(runner.seed, runner.iter)


def check_kind(state: dict[str, Any], by_iter: bool):
    """Check that checkpoint and config both count epochs, or iterations.

    Raises:
        ValueError: If one counts epochs and the other one iterations.
    """
    if 'draws' in state and 'update' in state and (
            by_iter != ('passes' in state)):
        kinds = ['epochs', 'iterations']
        raise ValueError(
            f'cannot resume: the checkpoint counts {kinds[not by_iter]}, but '
            f'train_cfg counts {kinds[by_iter]}')


def unknown_position(loop: Any) -> str:
    """Describe a resume that is not exact."""
    batches = type(loop.dataloader.batch_sampler).__name__
    sampler = type(sampler_of(loop.dataloader)).__name__
    return ('the position of this checkpoint in the data is unknown with '
            f'train_dataloader.batch_sampler={batches} and sampler={sampler}, '
            'so the results differ from those of an uninterrupted run')


def check_end(loop: Any, meta: dict[str, Any], by_iter: bool, former: int):
    """Check that a checkpoint is not beyond the end of the training.

    Raises:
        ValueError: If it is. Names the key of the config to increase.
    """
    name = 'iter' if by_iter else 'epoch'
    end = getattr(loop, f'max_{name}s')
    if meta[name] <= end:
        return
    moved = (f' (iteration {former} with the batch size of the checkpoint)'
             if by_iter and former != meta[name] else '')
    raise ValueError(
        f'cannot resume: the checkpoint is at {name} {meta[name]}{moved}, '
        f'beyond train_cfg.max_{name}s={end}; increase it')


def update_size(runner, feed: Feed | None) -> int:
    """Return the number of samples per update, 0 if unknown."""
    window = window_length(runner.optim_wrapper)
    return feed.total * window if feed else 0


def data_seed(runner, loader: DataLoader) -> int:
    """Return a seed that is equal on all processes, unlike ``runner.seed``."""
    return int(getattr(sampler_of(loader), 'seed', runner.seed))


def evaluate_if_due(runner):
    loop, val_loop = runner.train_loop, runner.val_loop
    by_iter = is_iteration_based(loop)
    done = loop.iter if by_iter else loop.epoch
    end = loop.max_iters if by_iter else loop.max_epochs
    if val_loop is not None and done >= loop.val_begin and (
            done % loop.val_interval == 0 or done == end):
        runner.logger.info('evaluating the resumed checkpoint')
        val_loop.run()


def seed_samples(loader: DataLoader, seed: int) -> NumberedSampler:
    """Derive the random numbers of a loader's samples from their draws."""
    iterator: Any = loader._iterator
    if iterator is not None:  # workers have a copy of the unchanged dataset
        iterator._shutdown_workers()
        loader._iterator = None
    sampler = sampler_of(loader)
    if hasattr(sampler, 'seed'):
        sampler.seed = seed
    dataset: Any = loader.dataset
    dataset.__getitems__ = SeededFetch(dataset, seed)
    batches: Any = loader.batch_sampler
    batches.sampler = numbered = NumberedSampler(sampler, batches)
    return numbered


def go_to(loop: Any, loader: DataLoader, numbered: NumberedSampler,
          position: Position):
    """Continue iteration-based training without reading former data.

    mmengine reads all former batches; here they are replaced by None.
    """
    former = loop.dataloader_iterator._iterator
    if hasattr(former, '_shutdown_workers'):
        former._shutdown_workers()
    sampler, (passes, draws) = numbered.sampler, position
    if hasattr(sampler, '_indices_of_rank'):  # infinite, already in use
        sampler.indices = sampler._indices_of_rank()
    elif hasattr(sampler, 'set_epoch'):
        sampler.set_epoch(passes)
    numbered.skip = draws // numbered.world
    iterator = type(loop.dataloader_iterator)(loader)
    iterator._epoch = passes
    loop.dataloader_iterator = Skipping(iterator, loop.iter)
