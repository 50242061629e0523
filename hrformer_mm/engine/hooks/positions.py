# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convert between iterations and positions in the training data.

A position is a number of passes over the data and the draws that all
processes made in the running pass. It means the same for any number of
processes and any batch; an iteration does not.
"""
from dataclasses import dataclass
from typing import Any, Iterator, Optional, Tuple

from mmengine.dist import get_dist_info, get_world_size
from torch.utils.data import BatchSampler, DataLoader, Sampler

Draw = Tuple[int, int, int]  # index of a sample, epoch, number in the epoch
Position = Tuple[int, int]  # passes, and draws of all processes since


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


@dataclass(frozen=True)
class Feed:
    """Lengths of a data loader.

    Attributes:
        batch: Samples of an iteration in one process.
        world: Number of processes.
        length: Draws of one process in a pass, or 0 if the sampler never
            ends.
        drop_last: Whether a batch that is not full is dropped.
    """
    batch: int
    world: int
    length: int
    drop_last: bool

    @property
    def total(self) -> int:
        """Samples of an iteration in all processes."""
        return self.batch * self.world

    def steps(self, draws: int) -> int:
        """Return the iterations that so many draws of one process make."""
        draws = max(draws, 0)
        return draws // self.batch if self.drop_last else (
            -(-draws // self.batch))

    def iteration(self, position: Position) -> int:
        """Return the iterations of this loader up to a position.

        Counted from the end of the pass, so that passes end where this
        loader's own do.
        """
        passes, draws = position
        if not self.length:
            return draws // self.total
        whole = self.steps(self.length)
        rest = self.steps(self.length - draws // self.world)
        return (passes + 1) * whole - rest

    def advance(self, position: Position, iterations: int) -> Position:
        """Return the position that is so many iterations further."""
        passes, draws = position
        if not self.length:
            return 0, draws + iterations * self.total
        rest = self.steps(self.length - draws // self.world)
        if iterations < rest or not self.steps(self.length):
            return passes, draws + iterations * self.total
        more, last = divmod(iterations - rest, self.steps(self.length))
        return passes + 1 + more, last * self.total


def feed_of(loader: DataLoader) -> Optional[Feed]:
    """Measure a data loader; None if it has a batch sampler of its own."""
    if type(loader.batch_sampler) is not BatchSampler:
        return None
    sampler: Any = loader.batch_sampler.sampler
    if isinstance(sampler, NumberedSampler):
        sampler = sampler.sampler
    endless = hasattr(sampler, '_indices_of_rank')
    return Feed(loader.batch_sampler.batch_size, get_world_size(),
                0 if endless else len(sampler), loader.drop_last)


def check_filled(loader: DataLoader):
    """Refuse training data that make no batch.

    Raises:
        ValueError: If there are no samples, or fewer than one batch and
            ``drop_last`` drops it.
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
