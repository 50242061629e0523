# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checkpoints that a kill, a full disk or a scheduler cannot spoil."""
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Sequence, Union

import torch
from mmengine.dist import all_reduce, barrier, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, ValLoop

from ...checkpoints.files import replacing
from ...registry import HOOKS
from .accumulation import window_is_open
from .buffers import synchronise_buffers
from .locking import lock_for_all, remove_leftovers, unlock_folder
from .signals import EXIT_CODE, StopRequest, shield_workers
from .starting import candidates

INTERRUPTED = 'interrupted.pth'  # of a run that was stopped by SIGTERM
WHOLE = 'hrformer_mm.whole'


@register_backend(WHOLE, force=True)
class WholeFileBackend(LocalBackend):
    """Local files that are written whole or not at all.

    mmengine's own backend writes in place, so a kill leaves half a file under
    the name of a checkpoint.
    """

    def put(self, obj: bytes, filepath: Union[str, Path]):
        with replacing(Path(filepath)) as temporary:
            with open(temporary, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())  # or the name may outlive the content


class RemovalsLast:
    """A file backend whose removals wait until :meth:`flush`."""

    def __init__(self, backend: Any):
        self.backend = backend
        self.paths: List[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str):
        self.paths.append(path)

    def flush(self, keep: List[Optional[str]]):
        for path in self.paths:
            if path not in keep and self.backend.isfile(path):
                self.backend.remove(path)


class NotSavedError(OSError):
    """A checkpoint could not be written; the text says what is left."""


def is_finite(model: torch.nn.Module) -> bool:
    """Whether all weights are finite, also those that others hold."""
    return bool(of_all(
        all(bool(p.isfinite().all()) for p in model.parameters()), 'min'))


def of_all(value: int, op: str) -> int:
    """Return the ``'min'`` or ``'max'`` of a number over all processes."""
    reduced = torch.tensor(int(value))
    all_reduce(reduced, op)
    return int(reduced)


def fingerprint(model: torch.nn.Module) -> List[float]:
    """Return the sum of each parameter.

    Buffers are left out: a ``SyncBuffersHook`` changes them for good.
    """
    sums = [p.detach().float().sum() for p in model.parameters()]
    return torch.stack(sums).tolist()


def undo_swaps(model: torch.nn.Module, hooks: Sequence[Any],
               expected: List[float]) -> bool:
    """Take back what hooks did to the weights for an evaluation.

    An ``EMAHook`` exchanges them for averages of its own, and back at the end.

    Args:
        model: Its weights are swapped only if that makes them as expected.
        hooks: In the order in which they were called.
        expected: Fingerprint of the model in training.

    Returns:
        Whether the weights are as expected.
    """
    undone: List[Callable] = []
    swaps = [h._swap_ema_parameters for h in reversed(hooks)
             if hasattr(h, '_swap_ema_parameters')]
    while fingerprint(model) != expected:
        if len(undone) == len(swaps):
            for swap in reversed(undone):
                swap()
            return False
        swap = swaps[len(undone)]
        swap()
        undone.append(swap)
    return True


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, for machines that fail.

    * A file appears under its name when it is complete.
    * Older checkpoints are removed after the new one is there, not before.
    * A disk that is full ends the training in one line; what was saved before
      stays valid. Weights that are not finite are not saved.
    * The work dir is locked: a second training in it ends in one line.
    * With gradient accumulation, checkpoints are saved at the end of a
      window: one that is due inside of it is saved a few iterations later.
    * SIGTERM, with which Slurm and ``torchrun`` announce the end, ends the
      training after the running iteration (with accumulation: its window), on
      all processes at once, with exit code 143 and a checkpoint
      ``interrupted.pth`` that ``--resume`` takes. During an evaluation it ends
      after the running batch. Repeated signals within 5 seconds are the same
      announcement; a later one ends the process as it would without the hook.

    Args:
        stop_on_sigterm: Whether to do the last of these.
    """
    backend_args: Any  # mmengine's
    file_backend: Any

    def __init__(self, *args, stop_on_sigterm: bool = True, **kwargs):
        super().__init__(*args, **kwargs)
        self.stop_on_sigterm = stop_on_sigterm
        self.request = StopRequest()
        self.saved_iter = -1
        self.is_due = False  # a checkpoint, at the end of the window
        self.listens = False
        self.weights: Optional[List[float]] = None  # see fingerprint
        self.can_stop_evaluation = False

    # Saving

    def before_run(self, runner):
        """Keep other trainings out of the work dir; tests may run in it."""
        if isinstance(runner._train_loop, BaseLoop):
            lock_for_all(runner.work_dir, runner.logger)

    def after_run(self, runner):
        for folder in {runner.work_dir, self.out_dir or runner.work_dir}:
            unlock_folder(folder)

    def before_train(self, runner):
        if '://' not in str(self.out_dir or '') and \
                not self.file_client_args and not self.backend_args:
            self.backend_args = dict(backend=WHOLE)
        super().before_train(runner)
        if self.backend_args == dict(backend=WHOLE):
            if is_main_process():
                os.makedirs(self.out_dir, exist_ok=True)
            if lock_for_all(self.out_dir, runner.logger) and is_main_process():
                remove_leftovers(self.out_dir)
        if self.stop_on_sigterm:
            self.listens = True
            self.request.listen()
            shield_workers(runner.train_dataloader)
            if runner.val_loop is not None:
                shield_workers(runner.val_dataloader)

    @contextmanager
    def saving(self, runner, step: int) -> Iterator[None]:
        """Around all that writes: order of removals, and what can fail.

        Raises:
            ValueError: For weights that are not finite.
            NotSavedError: If a file cannot be written; says what is left.
        """
        if not is_finite(runner.model):
            raise ValueError(
                f'weights are not finite after iteration {runner.iter}, so '
                f'they are not saved; {advice(runner)}')
        gather_optimizer(runner)
        synchronise_buffers(runner)
        backend = self.file_backend
        self.file_backend = waiting = RemovalsLast(backend)
        try:
            yield
        except NotSavedError:  # from inside, and told already
            raise
        except OSError as error:
            free = free_space(self.out_dir)
            raise NotSavedError(
                f'the checkpoint of step {step} could not be written to '
                f'{self.out_dir} ({error.strerror or error}{free}); '
                f'{advice(runner)}') from error
        finally:
            self.file_backend = backend
        waiting.flush([
            self.last_ckpt,
            getattr(self, 'best_ckpt_path', None),
            *getattr(self, 'best_ckpt_path_dict', {}).values()
        ])

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict):
        with self.saving(runner, step):
            super()._save_checkpoint_with_step(runner, step, meta)
        self.saved_iter = meta['iter']

    def _save_best_checkpoint(self, runner, metrics: dict):
        if self.save_best:
            with self.saving(runner, runner.iter):
                super()._save_best_checkpoint(runner, metrics)

    def after_train_iter(self, runner, *args, **kwargs):
        if window_is_open(runner):
            self.is_due = self.is_due or (
                not self.by_epoch and self.every_n_train_iters(
                    runner, self.interval, self.save_begin))
            return
        if self.is_due:
            runner.logger.info(
                f'Saving checkpoint at {runner.iter + 1} iterations')
            self._save_checkpoint(runner)
        else:
            super().after_train_iter(runner, *args, **kwargs)
        self.is_due = False
        # All processes leave in the same iteration.
        if self.listens and of_all(bool(self.request), 'max'):
            self.stop(runner, runner.iter + 1)

    # Stopping

    def before_val(self, runner):
        """Note the weights, before any hook exchanges them."""
        if self.listens:
            self.weights = fingerprint(runner.model)

    def before_val_epoch(self, runner):
        """Find out whether this evaluation can be stopped.

        All processes must leave it together, so each must have a batch in it;
        and nothing can be saved while a window is open.
        """
        loop = runner.val_loop
        self.can_stop_evaluation = (
            self.listens and type(loop).run is ValLoop.run
            and bool(of_all(len(loop.dataloader), 'min'))
            and not window_is_open(runner))

    def after_val_iter(self, runner, batch_idx, *args, **kwargs):
        """Leave the evaluation if any process got SIGTERM.

        Processes have different numbers of batches and are not equally fast,
        so they do not wait for each other after each batch: they meet once,
        after their last batch or as soon as they hear of the signal.
        """
        if not self.can_stop_evaluation:
            return
        is_last = batch_idx + 1 == len(runner.val_dataloader)
        told = self.request.is_announced()
        if (told or is_last) and of_all(told, 'max'):
            self.stop(runner, runner.iter)

    def stop(self, runner, done: int):
        """Save the state after ``done`` iterations and leave.

        Raises:
            SystemExit: With code 143.
        """
        runner.logger.warning(
            f'SIGTERM: stopped after iteration {done}, ' +
            self.save_for_stop(runner, done))
        barrier()  # nobody leaves before the file is there
        raise SystemExit(EXIT_CODE)

    def save_for_stop(self, runner, done: int) -> str:
        """Save, unless it was just done, and return where, as words."""
        if self.saved_iter == done:
            return advice(runner)
        if self.weights is not None and not of_all(
                undo_swaps(runner.model, runner.hooks, self.weights), 'min'):
            return ('which is not saved, as a hook changed the weights for '
                    f'the evaluation; {advice(runner)}')
        path = os.path.join(self.out_dir, INTERRUPTED)
        with self.saving(runner, done):
            runner.save_checkpoint(
                self.out_dir,
                INTERRUPTED,
                meta=dict(epoch=runner.epoch, iter=done),
                by_epoch=False,
                backend_args=self.backend_args)
            if is_main_process():
                WholeFileBackend().put(
                    path.encode(),
                    os.path.join(runner.work_dir, 'last_checkpoint'))
        return f'saved in {path}; continue with --resume'

    def after_val(self, runner):
        self.weights = None

    def after_train(self, runner):
        super().after_train(runner)
        self.listens = False
        self.request.restore()


def advice(runner) -> str:
    """Return what to do after a failure or a stop, in words."""
    paths = candidates(runner.work_dir)
    return (f'{paths[0]} is kept, and --resume continues from it'
            if paths else 'no checkpoint was saved before')


def free_space(folder: str) -> str:
    try:
        status = os.statvfs(folder)
    except (OSError, AttributeError):
        return ''
    return f', {status.f_bavail * status.f_frsize / 2**20:.0f} MiB are free'


def gather_optimizer(runner):
    """Bring the parts of a sharded optimizer to the first process."""
    gather = getattr(
        getattr(runner.optim_wrapper, 'optimizer', None),
        'consolidate_state_dict', None)
    if gather is not None and not is_model_wrapper(runner.optim_wrapper):
        gather(to=0)
