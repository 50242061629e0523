# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Resuming as if nothing had happened.

mmengine restores weights and optimizer; random numbers start again, an epoch
that was cut off too, and iteration-based training reads all former data anew.
Here random numbers follow from the seed and from what they are drawn for, so
there is nothing to restore but a position in the data.
"""
import random
from contextlib import suppress
from typing import Any, Dict, Iterator, List, Optional, Tuple, cast

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ...registry import HOOKS
from .accumulation import is_iteration_based, window_length
from .positions import (Draw, Feed, NumberedSampler, Position, check_filled,
                        feed_of)
from .schedules import follow_config
from .starting import START, STATE, check_resumable, newest_checkpoint


def seed_all(*key: int):
    """Seed Python, NumPy and PyTorch by a few integers >= 0."""
    first, second, third = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(first))
    np.random.seed(second)
    # torch.manual_seed walks the stack each time where CUDA is not used yet.
    torch.default_generator.manual_seed(int(third))
    if torch.cuda.is_initialized() and get_worker_info() is None:
        torch.cuda.manual_seed_all(int(third))


class SeededFetch:
    """Fetch a batch, with random numbers that follow from the draw.

    Takes the place of ``dataset.__getitems__``, which PyTorch calls with all
    that a batch sampler gives.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __call__(self, draws: List[Draw]) -> List[Any]:
        return [self.fetch(*draw) for draw in draws]

    def fetch(self, index: int, epoch: int, number: int) -> Any:
        """One sample.

        Raises:
            ValueError: If it fails; names its file.
        """
        seed_all(self.seed, epoch, number)
        try:
            return self.dataset[index]
        except Exception as error:
            text = ' '.join(f'{type(error).__name__} {error}'.split())
            raise ValueError(f'training sample {index}{self.path(index)} '
                             f'cannot be used: {text}') from error

    def path(self, index: int) -> str:
        with suppress(Exception):  # the error above is the one to tell
            dataset: Any = self.dataset
            return f" ({dataset.get_data_info(index)['img_path']})"
        return ''


class Skipping:
    """An iterator whose first ``count`` items are None and cost nothing."""

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
    """Let a resumed training end as one that was never interrupted.

    * ``--resume`` takes the newest checkpoint that can be read; one that is
      damaged is skipped with a warning. Without one, training starts from
      ``load_from``. Weights without training state are refused.
    * Random numbers of a sample follow from the seed, the epoch and its number
      in it, those of a step from the seed and the iteration. They do not
      depend on how many workers or processes there are.
    * Training continues inside an epoch, and without reading former data.
    * With another number of processes, batch or length, the position comes
      from the checkpoint, in epochs and samples; lengths and learning rates
      come from the config. A warning says so.
    * An evaluation that was due at the checkpoint is made, as the kill may
      have come during it.

    Random numbers and positions need a loader without a batch sampler of its
    own.
    """
    priority = 'LOWEST'  # after all hooks that others come with

    def __init__(self):
        self.state: Dict[str, Any] = {}  # of the checkpoint
        self.feed: Optional[Feed] = None
        # An epoch, the iteration before it or inside, the position there.
        self.origin: Tuple[int, int, Position] = (-1, 0, (0, 0))

    def before_run(self, runner):
        if runner.train_loop is not None:
            check_filled(runner.train_dataloader)
        self.before_loading(runner)

    def before_loading(self, runner):
        """Choose the checkpoint, on the first process for all."""
        if not runner._resume or runner._load_from is not None:
            return
        found: List[Any] = [None, None]
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
                f'no checkpoint in {runner.work_dir}: a new training starts'
                f' from {runner._load_from or "scratch"}')

    def after_load_checkpoint(self, runner, checkpoint: dict):
        self.state = {}
        if not runner._resume:
            return
        check_resumable(checkpoint, runner._load_from)
        self.state = checkpoint.get(STATE, {})
        self.adopt(runner, checkpoint)

    def adopt(self, runner, checkpoint: dict):
        """Translate a checkpoint to the lengths of this run.

        Raises:
            ValueError: If the training is further than it is to go.
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
        text = '; '.join(filter(None, remarks))
        if text:
            runner.logger.warning(f'resumed with another config: {text}')

    def position(self, meta: dict, by_iter: bool) -> Position:
        """Return passes over the data, and draws since, of a checkpoint."""
        if not by_iter:
            return meta['epoch'], self.state.get('draws', 0)
        if 'passes' in self.state:
            return self.state['passes'], self.state['draws']
        assert self.feed is not None
        return self.feed.advance((0, 0), meta['iter'])

    def batches(self, runner, former: int, now: int) -> Iterator[str]:
        """Describe how the samples of a step and an update changed."""
        if former != now:
            yield (f'iteration {former} of the checkpoint is iteration {now} '
                   f'here')
        then, here = self.state.get('update'), update_size(runner, self.feed)
        if then and here and then != here:
            scaled = (runner.cfg.get('auto_scale_lr') or {}).get('enable')
            yield (f'an update sees {here} samples instead of {then}' + (
                '' if scaled else ', --auto-scale-lr would scale the '
                'learning rate'))

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
            # Made by all processes in a pass that is not at its end.
            draws=draws,
            update=update_size(runner, self.feed))

    def before_train(self, runner):
        loop, loader = runner.train_loop, runner.train_dataloader
        self.seed = self.state.get('seed', data_seed(runner, loader))
        self.feed = feed_of(loader)
        by_iter = is_iteration_based(loop)
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        if self.feed is not None:
            numbered = install(loader, self.seed)
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
            return  # all of the training is one epoch
        draws = loader.batch_sampler.sampler.skip * self.feed.world
        self.origin = runner.epoch, runner.iter, (runner.epoch, draws)

    def before_train_iter(self, runner, *args, **kwargs):
        seed_all(runner.seed, runner.iter)


def check_kind(state: Dict[str, Any], by_iter: bool):
    """Refuse to resume training by epochs as training by iterations.

    Raises:
        ValueError: If the checkpoint counts otherwise than the config.
    """
    if 'draws' in state and 'update' in state and (
            by_iter != ('passes' in state)):
        kinds = ['epochs', 'iterations']
        raise ValueError(
            f'cannot resume: the checkpoint is of a training by '
            f'{kinds[not by_iter]}, train_cfg trains by {kinds[by_iter]}')


def check_end(loop: Any, meta: Dict[str, Any], by_iter: bool, former: int):
    """Refuse a checkpoint that is beyond the end of the training.

    Raises:
        ValueError: Names the key of the config that ends it.
    """
    name = 'iter' if by_iter else 'epoch'
    end = getattr(loop, f'max_{name}s')
    if meta[name] <= end:
        return
    moved = (f' (iteration {former} of the checkpoint, at the batch of this '
             'run)' if by_iter and former != meta[name] else '')
    raise ValueError(
        f'cannot resume: the checkpoint is at {name} {meta[name]}{moved}, and '
        f'train_cfg.max_{name}s={end} ends before; set it to more')


def update_size(runner, feed: Optional[Feed]) -> int:
    """Return the samples that an update of the weights sees, 0 if unknown."""
    window = window_length(runner.optim_wrapper)
    return feed.total * window if feed else 0


def data_seed(runner, loader: DataLoader) -> int:
    """A seed that all processes share, unlike ``runner.seed``."""
    return int(getattr(loader.sampler, 'seed', runner.seed))


def evaluate_if_due(runner):
    loop, val_loop = runner.train_loop, runner.val_loop
    by_iter = is_iteration_based(loop)
    done = loop.iter if by_iter else loop.epoch
    end = loop.max_iters if by_iter else loop.max_epochs
    if val_loop is not None and done >= loop.val_begin and (
            done % loop.val_interval == 0 or done == end):
        runner.logger.info('evaluating what was resumed')
        val_loop.run()


def install(loader: DataLoader, seed: int) -> NumberedSampler:
    """Let random numbers of a loader's samples follow from their draws."""
    iterator: Any = loader._iterator
    if iterator is not None:  # workers have the dataset as it was
        iterator._shutdown_workers()
        loader._iterator = None
    if hasattr(loader.sampler, 'seed'):
        loader.sampler.seed = seed
    dataset: Any = loader.dataset
    dataset.__getitems__ = SeededFetch(dataset, seed)
    batches: Any = loader.batch_sampler
    batches.sampler = numbered = NumberedSampler(cast(Sampler, loader.sampler))
    return numbered


def go_to(loop: Any, loader: DataLoader, numbered: NumberedSampler,
          position: Position):
    """Let iteration-based training continue without reading former data.

    mmengine reads all former batches; here it gets None for each of them.
    """
    former = loop.dataloader_iterator._iterator
    if hasattr(former, '_shutdown_workers'):
        former._shutdown_workers()
    sampler, (passes, draws) = numbered.sampler, position
    if hasattr(sampler, '_indices_of_rank'):  # infinite, and drawn of already
        sampler.indices = sampler._indices_of_rank()
    elif hasattr(sampler, 'set_epoch'):
        sampler.set_epoch(passes)
    numbered.skip = draws // numbered.world
    iterator = type(loop.dataloader_iterator)(loader)
    iterator._epoch = passes
    loop.dataloader_iterator = Skipping(iterator, loop.iter)
