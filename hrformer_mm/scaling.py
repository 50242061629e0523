# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What data parallelism costs a row, from its size and stated assumptions.

Every step, processes average their gradients (DDP, fp32, in buckets) while
the backward pass goes on, and their batch-norm statistics (SyncBN), for which
it waits. Parameters, batch norms and multiply-adds are counted from the
config; how fast a GPU and a network are is assumed, unless it is given.
"""
import statistics
import time
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import flops, zoo
from .costs import gradient_bytes
from .markdown import markdown_table

MIB = 2**20
BUCKET = 25 * MIB  # of gradients; DDP's default
BACKWARD = 2 / 3  # share of a step: two of its three passes of products
WHOLE_STEP = 6  # operations of a step by multiply-add of a forward pass


@dataclass(frozen=True)
class Cluster:
    """GPUs and the network between them. All figures are assumptions.

    Attributes:
        gpus: In all.
        bandwidth: Bytes a second over the slowest link of the ring.
        latency: Seconds that the smallest exchange takes.
    """
    gpus: int
    bandwidth: float
    latency: float

    def exchange(self, size: float) -> float:
        """Seconds of an all-reduce of so many bytes, as a ring."""
        return self.latency + (
            2 * (self.gpus - 1) / self.gpus * size / self.bandwidth)


@dataclass(frozen=True)
class Demand:
    """What a row asks for in each step of one process.

    Attributes:
        gradients: Bytes.
        norms: Batch norms that are synchronised.
        macs: Multiply-adds of a forward pass of the batch.
        batch: Samples.
    """
    gradients: int
    norms: int
    macs: int
    batch: int

    def seconds(self, rate: float) -> float:
        """Of a step, at so many operations a second."""
        return WHOLE_STEP * self.macs / rate


def training_size(cfg: Config) -> Tuple[int, int]:
    """Height and width of what a row trains on."""
    size = cfg.get('crop_size')
    return tuple(size) if size else zoo.input_size(cfg.filename)


def demand_of(cfg: Config) -> Demand:
    """Count what a row's steps ask for."""
    model = zoo.build_model(cfg)
    batch = cfg.train_dataloader.batch_size
    norms = sum(isinstance(m, _BatchNorm) for m in model.modules())
    return Demand(
        gradient_bytes(model), norms if cfg.get('sync_bn') else 0,
        batch * flops.count(model, training_size(cfg)).total('macs'), batch)


def waiting(demand: Demand, cluster: Cluster, step: float) -> float:
    """Seconds a step waits for others.

    Buckets are exchanged while the backward pass computes the next; the last
    has nothing to hide behind. Statistics of a batch norm are exchanged once
    in the forward and once in the backward pass, one norm after another.
    """
    buckets = -(-demand.gradients // BUCKET)
    last = cluster.exchange(demand.gradients / buckets)
    hidden = (buckets - 1) * last
    norms = 2 * demand.norms * cluster.latency
    return norms + last + max(hidden - BACKWARD * step, 0.)


def efficiency(demand: Demand, cluster: Cluster, step: float) -> float:
    """Share of its time that each GPU computes.

    Args:
        step: Seconds of a step on one GPU alone.
    """
    return step / (step + waiting(demand, cluster, step))


def efficiency_table(names: Sequence[str], clusters: Sequence[Cluster],
                     rates: Sequence[float],
                     seconds: Optional[float] = None) -> str:
    """What rows exchange, and their efficiency on clusters, as Markdown.

    Args:
        names: Of rows.
        rates: Operations a second of a GPU, to assume.
        seconds: Of a step, if it was measured; then ``rates`` are not used.
    """
    header = ['row', 'samples per GPU', 'gradients per step', 'synchronised '
              'norms', 'GMACs per step', 'step']
    header += [f'efficiency on {c.gpus}' for c in clusters]
    lines = []
    for name in names:
        demand = demand_of(zoo.get_config(name))
        for step in [seconds] if seconds else map(demand.seconds, rates):
            lines.append([
                name, str(demand.batch), f'{demand.gradients / MIB:.1f} MiB',
                str(demand.norms), f'{demand.macs / 1e9:.0f}',
                f'{1000 * step:.0f} ms'
            ] + [f'{efficiency(demand, c, step):.0%}' for c in clusters])
    return markdown_table(header, lines)


def recipe_table(names: Sequence[str], gpus: Sequence[int]) -> str:
    """How recipes run on other numbers of GPUs, as Markdown.

    The first way keeps the samples of each GPU and scales the learning rate
    with the whole batch, as ``--auto-scale-lr`` does; the second keeps the
    whole batch, where it can be shared evenly.
    """
    header = ['row', 'recipe', 'GPUs', 'same samples per GPU, '
              '--auto-scale-lr', 'same batch and learning rate']
    lines = []
    for name in names:
        cfg = zoo.get_config(name)
        base = cfg.auto_scale_lr.base_batch_size
        each = cfg.train_dataloader.batch_size
        lr = cfg.optim_wrapper.optimizer.lr
        for n in gpus:
            share = f'{base // n} per GPU' if base % n == 0 else 'not evenly'
            lines.append([
                name, f'batch {base}, lr {lr:g}', str(n),
                f'batch {n * each}, lr {lr * n * each / base:g}', share
            ])
    return markdown_table(header, lines)


def measure(model: nn.Module, shape: Tuple[int, int], batch: int,
            steps: int = 3) -> float:
    """Median seconds of a step on random images, after one that warms up.

    Forward, backward and AdamW in full precision, on the model's device,
    without data loading, targets and losses.

    Args:
        shape: Height and width.
    """
    device = next(model.parameters()).device
    image = torch.rand(batch, 3, *shape, device=device)
    mode = dict(data_samples=None, mode='tensor') if isinstance(
        model, BaseModel) else {}
    optimizer = torch.optim.AdamW(model.parameters())
    seconds = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        maps = model(image, **mode)
        torch.stack([x.float().mean() for x in flat(maps)]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def flat(maps) -> List[torch.Tensor]:
    """Tensors of nested tuples and lists."""
    if isinstance(maps, torch.Tensor):
        return [maps]
    return [x for part in maps for x in flat(part)]
