# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What a training costs: memory, bytes on disk, and iterations."""
import weakref
from typing import Any, Iterable, Iterator, Mapping, Tuple

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from .config import bare_name

GIB = 2**30
# Tensors of a parameter's size that optimizers keep beside it.
MOMENTS = dict(SGD=1, Adam=2, AdamW=2)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each counted once."""
    unique = {id(t): t.numel() * t.element_size() for t in tensors}
    return sum(unique.values())


def gradient_bytes(model: nn.Module) -> int:
    """Bytes of all gradients: what processes exchange in each step."""
    return nbytes(p for p in model.parameters() if p.requires_grad)


def checkpoint_bytes(model: nn.Module, cfg: Config) -> int:
    """Bytes of a checkpoint of the Runner: weights and moments.

    Averages of an EMA hook are stored beside the weights.
    """
    weights = nbytes([*model.parameters(), *model.buffers()])
    hooks = [bare_name(hook.get('type', ''))
             for hook in cfg.get('custom_hooks') or ()]
    kind = bare_name(cfg.optim_wrapper.get('optimizer', {}).get('type', ''))
    saved = cfg.get('default_hooks', {}).get('checkpoint') or {}
    moments = MOMENTS.get(kind, 2) if saved.get('save_optimizer', True) else 0
    return (weights * (2 if 'EMAHook' in hooks else 1) +
            moments * gradient_bytes(model))


def count_checkpoints(cfg: Config) -> int:
    """Most checkpoints that a run has on disk at a time.

    While one is written, those that it replaces are still there.
    """
    hook = cfg.get('default_hooks', {}).get('checkpoint') or {}
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.get('max_iters')
    interval, most = hook.get('interval', -1), hook.get('max_keep_ckpts', -1)
    kept = -(-length // interval) if interval > 0 else 0
    if most > 0:
        kept = min(kept, most + 1)
    best = hook.get('save_best') or []
    return kept + (1 if isinstance(best, str) else len(best))


def count_iterations(cfg: Config, samples: int,
                     processes: int) -> Tuple[int, int]:
    """Iterations of a training, and of an epoch.

    Args:
        cfg: A config with ``train_cfg`` and ``train_dataloader``.
        samples: Of the training set.
        processes: That share each epoch.
    """
    loader = cfg.train_dataloader
    share = -(-samples // processes)  # samplers round up
    epoch = share // loader.batch_size if loader.get('drop_last') else (
        -(-share // loader.batch_size))
    epochs = cfg.train_cfg.get('max_epochs')
    return (epochs * epoch if epochs else cfg.train_cfg.max_iters), epoch


def count_evaluations(cfg: Config) -> int:
    """Evaluations during a training."""
    if cfg.get('val_cfg') is None:
        return 0
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters
    return length // cfg.train_cfg.get('val_interval', 1)


def tensors_in(value: Any) -> Iterator[Tensor]:
    return (x for x in tree_flatten(value)[0] if isinstance(x, Tensor))


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is entered.

    It sees what autograd keeps, gradients and what operations give back, on
    any device; not the workspace inside an operation, nor what an allocator
    wastes.

    Attributes:
        now: Bytes that are alive.
        peak: The most that were.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.alive = {}  # bytes by the address of a storage

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = [t.untyped_storage() for t in tensors_in((args, kwargs))]
        known = self.alive.keys() | {storage._cdata for storage in inputs}
        out = func(*args, **kwargs)
        for tensor in tensors_in(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in known:
                self.add(storage)
        return out

    def add(self, storage: torch.UntypedStorage):
        self.alive[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.drop, storage._cdata)

    def drop(self, address: int):
        self.now -= self.alive.pop(address)


def optimizer_bytes(state: Mapping) -> int:
    """Bytes of the tensors of an optimizer's ``state_dict``."""
    return nbytes(tensors_in(state['state']))
