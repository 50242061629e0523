# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Resuming as if nothing had happened.

mmengine restores weights and optimiser; random numbers start again, an epoch
that was cut off too, and iteration-based training reads all former data anew.
Here random numbers follow from the seed and from what they are drawn for, so
there is nothing to restore but a position in the data.
"""
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, cast

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.hooks import Hook
from torch.utils.data import (BatchSampler, DataLoader, Dataset, Sampler,
                              get_worker_info)

from ..checkpoints.files import read_checkpoint
from ..registry import HOOKS

STATE = 'hrformer_mm_data'  # in checkpoints
Draw = Tuple[int, int, int]  # index of a sample, epoch, number in the epoch


def seed_all(*key: int):
    """Seed Python, NumPy and PyTorch by a few integers >= 0."""
    first, second, third = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(first))
    np.random.seed(second)
    # torch.manual_seed walks the stack each time where CUDA is not used yet.
    torch.default_generator.manual_seed(int(third))
    if torch.cuda.is_initialized() and get_worker_info() is None:
        torch.cuda.manual_seed_all(int(third))


class NumberedSampler(Sampler):
    """Give each draw of a sampler a number that is its own.

    Numbers go round the processes, so that two processes with batches of b
    draw what one process with batches of 2b draws.

    Args:
        sampler: Any; its ``epoch`` is read if it has one.

    Attributes:
        skip: How many draws the next pass leaves out at its beginning.
    """

    def __init__(self, sampler: Sampler):
        self.sampler: Any = sampler
        self.skip = 0
        self.rank, self.world = get_dist_info()

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Draw]:
        epoch = getattr(self.sampler, 'epoch', 0)
        skip, self.skip = self.skip, 0
        for position, index in enumerate(self.sampler):
            if position >= skip:
                yield index, epoch, position * self.world + self.rank


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


def candidates(work_dir: str) -> List[Path]:
    """Checkpoints to resume from, the best one first.

    What ``last_checkpoint`` names comes before what was written last, since
    times do not survive a copy. ``best_*.pth`` hold no optimiser.
    """
    folder = Path(work_dir)
    files = [p for p in folder.glob('*.pth')
             if not p.name.startswith(('best_', '.'))]
    files.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    pointer = folder / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if named and not Path(named).exists():
        named = str(folder / Path(named).name)  # the work dir was moved
    if not named or not Path(named).exists():
        return files
    return [Path(named), *(p for p in files if p != Path(named))]


def newest_checkpoint(work_dir: str, logger: Any) -> Optional[str]:
    """The first of :func:`candidates` that can be read.

    Raises:
        ValueError: If there are some and none of them can be read.
    """
    paths = candidates(work_dir)
    for path in paths:
        if path.is_dir():  # of a strategy that writes one file a process
            return str(path)
        try:
            if 'optimizer' in read_checkpoint(path):
                return str(path)
            reason = f'{path} holds no state of the optimiser'
        except ValueError as error:
            reason = str(error)
        logger.warning(f'not resumed from, looking at the one before: '
                       f'{reason}')
    if paths:
        raise ValueError(f'none of the checkpoints in {work_dir} can be '
                         'resumed from; without --resume training starts anew')
    return None


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Let a resumed training end as one that was never interrupted.

    * ``--resume`` takes the newest checkpoint that can be read; one that is
      damaged is passed over with a warning.
    * Random numbers of a sample follow from the seed, the epoch and its number
      in it, those of a step from the seed and the iteration. They do not
      depend on how many workers or processes there are.
    * Training goes on inside an epoch, and without reading former data.
    * An evaluation that was due at the checkpoint is made, as the kill may
      have come during it.

    The first of these also holds for loaders with a batch sampler of their
    own; the others do not.
    """
    priority = 'LOWEST'  # after all hooks that others come with

    def __init__(self):
        self.state: Dict[str, int] = {}  # of the checkpoint
        self.epoch_began = (-1, 0)  # an epoch and the iteration before it

    def before_run(self, runner):
        if runner._resume and runner._load_from is None:
            found: List[Any] = [None, None]
            if get_dist_info()[0] == 0:
                try:
                    found[0] = newest_checkpoint(runner.work_dir,
                                                 runner.logger)
                except ValueError as error:
                    found[1] = error
            broadcast_object_list(found)
            if found[1]:
                raise found[1]
            runner._load_from = found[0]

    def after_load_checkpoint(self, runner, checkpoint: dict):
        self.state = checkpoint.get(STATE, {}) if runner._resume else {}

    def before_save_checkpoint(self, runner, checkpoint: dict):
        loader, meta = runner.train_dataloader, checkpoint['meta']
        epoch, iteration = self.epoch_began
        batches = meta['iter'] - iteration if meta['epoch'] == epoch else 0
        checkpoint[STATE] = dict(
            seed=self.seed,
            # Drawn by all processes in an epoch that is not at its end.
            draws=batches * (loader.batch_size or 0) * get_dist_info()[1])

    def before_train(self, runner):
        loop, loader = runner.train_loop, runner.train_dataloader
        self.seed = self.state.get('seed', data_seed(runner, loader))
        draws = self.state.get('draws', 0)
        if type(loader.batch_sampler) is BatchSampler:
            numbered = install(loader, self.seed)
            if hasattr(loop, 'dataloader_iterator'):
                go_to(loop, loader, numbered)
            else:
                numbered.skip = draws // numbered.world
        if runner.iter and not draws:
            evaluate_if_due(runner)

    def before_train_epoch(self, runner):
        loop, loader = runner.train_loop, runner.train_dataloader
        if hasattr(loop, 'dataloader_iterator'):
            return  # all of the training is one epoch
        skip = getattr(loader.batch_sampler.sampler, 'skip', 0)
        self.epoch_began = (
            runner.epoch, runner.iter - skip // (loader.batch_size or 1))

    def before_train_iter(self, runner, *args, **kwargs):
        seed_all(runner.seed, runner.iter)


def data_seed(runner, loader: DataLoader) -> int:
    """A seed that all processes share, unlike ``runner.seed``."""
    return int(getattr(loader.sampler, 'seed', runner.seed))


def evaluate_if_due(runner):
    loop, val_loop = runner.train_loop, runner.val_loop
    by_iter = hasattr(loop, 'dataloader_iterator')
    done = loop.iter if by_iter else loop.epoch
    end = loop.max_iters if by_iter else loop.max_epochs
    if val_loop is not None and done >= loop.val_begin and (
            done % loop.val_interval == 0 or done == end):
        runner.logger.info('evaluating what was resumed')
        val_loop.run()


def install(loader: DataLoader, seed: int) -> NumberedSampler:
    """Let random numbers of a loader's samples follow from their draws."""
    iterator: Any = loader._iterator
    if iterator is not None:  # workers have the data set as it was
        iterator._shutdown_workers()
        loader._iterator = None
    if hasattr(loader.sampler, 'seed'):
        loader.sampler.seed = seed
    dataset: Any = loader.dataset
    dataset.__getitems__ = SeededFetch(dataset, seed)
    batches: Any = loader.batch_sampler
    batches.sampler = numbered = NumberedSampler(cast(Sampler, loader.sampler))
    return numbered


def go_to(loop: Any, loader: DataLoader, numbered: NumberedSampler):
    """Let iteration-based training go on without reading former data.

    mmengine reads all former batches; here it gets None for each of them.
    """
    former = loop.dataloader_iterator._iterator
    if hasattr(former, '_shutdown_workers'):
        former._shutdown_workers()
    sampler, passes, batches = numbered.sampler, 0, loop.iter
    if hasattr(sampler, '_indices_of_rank'):  # infinite, and drawn of already
        sampler.indices = sampler._indices_of_rank()
    else:
        passes, batches = divmod(batches, len(loader))
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(passes)
    numbered.skip = batches * loader.batch_size
    iterator = type(loop.dataloader_iterator)(loader)
    iterator._epoch = passes
    loop.dataloader_iterator = Skipping(iterator, loop.iter)
