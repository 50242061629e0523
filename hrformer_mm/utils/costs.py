# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Compute the cost of training: memory, bytes on disk, and iterations."""
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from .config import bare_name

# Number of state tensors per parameter, each of the parameter's size.
MOMENTS = dict(SGD=1, Adam=2, AdamW=2)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, counting each tensor once."""
    unique = {id(t): t.numel() * t.element_size() for t in tensors}
    return sum(unique.values())


def gradient_bytes(model: nn.Module) -> int:
    """Return the bytes of all gradients, which all-reduce exchanges."""
    return nbytes(p for p in model.parameters() if p.requires_grad)


def checkpoint_bytes(model: nn.Module, cfg: Config) -> int:
    """Return the bytes of a checkpoint: weights, EMA and optimizer state."""
    weights = nbytes([*model.parameters(), *model.buffers()])
    hooks = [bare_name(hook.get('type', ''))
             for hook in cfg.get('custom_hooks') or ()]
    kind = bare_name(cfg.optim_wrapper.get('optimizer', {}).get('type', ''))
    saved = cfg.get('default_hooks', {}).get('checkpoint') or {}
    moments = MOMENTS.get(kind, 2) if saved.get('save_optimizer', True) else 0
    return (weights * (2 if 'EMAHook' in hooks else 1) +
            moments * gradient_bytes(model))


def count_checkpoints(cfg: Config) -> int:
    """Return the maximum number of checkpoints on disk during a run."""
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.get('max_iters')
    interval, most = hook.get('interval', -1), hook.get('max_keep_ckpts', -1)
    kept = -(-length // interval) if interval > 0 else 0
    if most > 0:  # one more, as the oldest is deleted last
        kept = min(kept, most + 1)
    best = hook.get('save_best') or []
    return kept + (1 if isinstance(best, str) else len(best))


def count_iterations(cfg: Config, samples: int,
                     processes: int) -> tuple[int, int]:
    """Return the iterations of a training run, and of one epoch.

    Args:
        cfg: Config of the training.
        samples: Number of samples of the training set.
        processes: Number of processes that share each epoch.
    """
    loader = cfg.train_dataloader
    share = -(-samples // processes)  # samplers round up
    epoch = share // loader.batch_size if loader.get('drop_last') else (
        -(-share // loader.batch_size))
    epochs = cfg.train_cfg.get('max_epochs')
    return (epochs * epoch if epochs else cfg.train_cfg.max_iters), epoch


def count_evaluations(cfg: Config) -> int:
    """Return the number of evaluations during training."""
    if cfg.get('val_cfg') is None:
        return 0
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    return length // cfg.train_cfg.get('val_interval', 1)


def tensors_of(value: Any) -> Iterator[Tensor]:
    return (x for x in tree_flatten(value)[0] if isinstance(x, Tensor))


class PeakMemory(TorchDispatchMode):
    """Context that counts the bytes of all tensors created inside it.

    It counts the tensors saved by autograd, gradients and the outputs of
    operations, on any device. It does not count the workspace inside an
    operation, nor fragmentation of the allocator.

    Attributes:
        now: Bytes of the tensors that are alive.
        peak: Maximum of ``now``.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.alive = {}  # bytes by the address of a storage

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = [t.untyped_storage() for t in tensors_of((args, kwargs))]
        known = self.alive.keys() | {storage._cdata for storage in inputs}
        out = func(*args, **kwargs)
        for tensor in tensors_of(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in known:
                self.alive[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.drop, storage._cdata)
        return out

    def drop(self, address: int):
        self.now -= self.alive.pop(address)
