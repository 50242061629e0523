# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convert between iterations and positions in the training data.

A position is the number of completed passes over the data and the number of
samples that all processes have drawn in the current pass. Unlike an iteration,
it does not depend on the number of processes and the batch size.
"""
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.dist import get_dist_info, get_world_size
from torch.utils.data import BatchSampler, DataLoader, Sampler

Draw = tuple[int, int, int]  # index of a sample, epoch, number in the epoch
Position = tuple[int, int]  # passes, and draws of all processes since


class NumberedSampler(Sampler):
    """Sampler that assigns a unique number to each draw of another sampler.

    Numbers alternate between processes, so that two processes with batches of
    b draw the same samples as one process with batches of 2b.

    Args:
        sampler: Sampler to wrap. Its ``epoch`` is read if it has one.

    Attributes:
        skip: Number of draws to skip at the beginning of the next pass.
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


def feed_of(loader: DataLoader) -> Feed | None:
    """Return the lengths of a loader, None for custom batch samplers."""
    if type(loader.batch_sampler) is not BatchSampler:
        return None
    sampler: Any = loader.batch_sampler.sampler
    if isinstance(sampler, NumberedSampler):
        sampler = sampler.sampler
    endless = hasattr(sampler, '_indices_of_rank')
    return Feed(loader.batch_sampler.batch_size, get_world_size(),
                0 if endless else len(sampler), loader.drop_last)


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
