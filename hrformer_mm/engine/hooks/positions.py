# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convert between iterations and positions in the training data.

A position is the number of completed passes over the data and the number of
samples that all processes have drawn in the current pass. Unlike an iteration,
it does not depend on the number of processes and the batch size.
"""
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from mmengine.dist import get_dist_info, get_world_size
from torch.utils.data import DataLoader, Sampler

Position = tuple[int, int]  # passes, and draws of all processes since
# Batches are drawn in turn, or a batch has images of one orientation.
IN_TURN = 'torch.utils.data.sampler.BatchSampler'
ORIENTED = 'mmdet.datasets.samplers.batch_sampler.AspectRatioBatchSampler'


class Draw(int):
    """Index of a sample, with its epoch and its number in the epoch."""
    epoch: int
    number: int


class NumberedSampler(Sampler):
    """Sampler that assigns a unique number to each draw of another sampler.

    Numbers alternate between processes, so that two processes with batches of
    b draw the same samples as one process with batches of 2b.

    Args:
        sampler: Sampler to wrap. Its ``epoch`` is read if it has one.
        batches: Batch sampler that groups the draws.

    Attributes:
        skip: Number of draws to skip at the beginning of the next pass: those
            in the first batches.
    """

    def __init__(self, sampler: Sampler, batches: Any):
        self.sampler: Any = sampler
        self.batches = batches
        self.dataset = getattr(sampler, 'dataset', None)
        self.skip = 0
        self.rank, self.world = get_dist_info()

    def set_epoch(self, epoch: int):
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Draw]:
        epoch = getattr(self.sampler, 'epoch', 0)
        skip, self.skip = self.skip, 0
        if skip and name_of(self.batches) == ORIENTED:
            skipped = self.in_first_batches(skip)
        else:
            skipped = range(skip)
        for position, index in enumerate(self.sampler):
            if position not in skipped:
                draw = Draw(index)
                draw.epoch = epoch
                draw.number = position * self.world + self.rank
                yield draw

    def in_first_batches(self, count: int) -> Container[int]:
        """Return the positions of the draws that are first in batches.

        The others are batched as they would be after them, because a batch
        sampler of orientations keeps the order within each orientation.
        """
        again = NumberedSampler(self.sampler, self.batches)
        batches = type(self.batches)(again, self.batches.batch_size,
                                     self.batches.drop_last)
        draws = islice(chain.from_iterable(batches), count)
        return {draw.number // self.world for draw in draws}


@dataclass(frozen=True)
class Feed:
    """Lengths of a data loader.

    Attributes:
        batch: Batch size of one process.
        world: Number of processes.
        length: Number of draws of one process per pass, or 0 if the sampler
            is infinite.
        drop_last: Whether an incomplete batch is dropped.
    """
    batch: int
    world: int
    length: int
    drop_last: bool

    @property
    def total(self) -> int:
        """Return the number of samples per iteration of all processes."""
        return self.batch * self.world

    def steps(self, draws: int) -> int:
        """Return the number of iterations for draws of one process."""
        draws = max(draws, 0)
        return draws // self.batch if self.drop_last else (
            -(-draws // self.batch))

    def iteration(self, position: Position) -> int:
        """Return the number of iterations of this loader up to a position.

        They are counted back from the end of the pass, so that the pass ends
        at a full number of passes of this loader.
        """
        passes, draws = position
        if not self.length:
            return draws // self.total
        whole = self.steps(self.length)
        rest = self.steps(self.length - draws // self.world)
        return (passes + 1) * whole - rest

    def advance(self, position: Position, iterations: int) -> Position:
        """Return the position after a number of further iterations."""
        passes, draws = position
        if not self.length:
            return 0, draws + iterations * self.total
        rest = self.steps(self.length - draws // self.world)
        if iterations < rest or not self.steps(self.length):
            return passes, draws + iterations * self.total
        more, last = divmod(iterations - rest, self.steps(self.length))
        return passes + 1 + more, last * self.total


def name_of(batches: Any) -> str:
    """Return the name of the class of a batch sampler, with its module."""
    return f'{type(batches).__module__}.{type(batches).__qualname__}'


def sampler_of(loader: DataLoader) -> Any:
    """Return the sampler of a loader, which may have a batch sampler."""
    sampler: Any = getattr(loader.batch_sampler, 'sampler', loader.sampler)
    if isinstance(sampler, NumberedSampler):
        sampler = sampler.sampler
    return sampler


def feed_of(loader: DataLoader) -> Feed | None:
    """Return the lengths of a loader, None if positions are unknown.

    They are with custom batch samplers, and if one of orientations has an
    infinite sampler, as its batches do not end with a pass.
    """
    batches: Any = loader.batch_sampler
    sampler = sampler_of(loader)
    endless = hasattr(sampler, '_indices_of_rank')
    if name_of(batches) not in ((IN_TURN, ) if endless else
                                (IN_TURN, ORIENTED)):
        return None
    return Feed(batches.batch_size, get_world_size(),
                0 if endless else len(sampler), batches.drop_last)


def check_filled(loader: DataLoader):
    """Check that the training data fill at least one batch.

    Raises:
        ValueError: If there are no samples, or if ``drop_last`` drops the only
            batch.
    """
    samples = len(loader.dataset) if hasattr(loader.dataset, '__len__') else 1
    if not samples:
        raise ValueError('train_dataloader: the dataset has no samples')
    feed = feed_of(loader)
    if feed is not None and feed.length and not feed.steps(feed.length):
        raise ValueError(
            f'train_dataloader: {samples} samples on {feed.world} process(es) '
            f'do not fill one batch of {feed.batch} each, and drop_last=True '
            'drops it, so there is nothing to train on; set a smaller '
            'train_dataloader.batch_size or train_dataloader.drop_last=False')
