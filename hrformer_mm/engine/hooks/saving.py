# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Save checkpoints that stay valid after kills and on full disks."""
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

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

INTERRUPTED = 'interrupted.pth'  # checkpoint of a run stopped by SIGTERM
WHOLE = 'hrformer_mm.whole'


def unknown_metrics(save_best: Iterable[str], metrics: Iterable[str]
                    ) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with each name in ``save_best``, and the fix."""
    same = {name.lower(): name for name in metrics}
    for wanted in save_best:
        if wanted != 'auto' and wanted not in same.values():
            near = get_close_matches(wanted.lower(), same, 1, 0.)
            yield (f'default_hooks.checkpoint.save_best is {wanted!r}, which '
                   f'is not one of the metrics {sorted(same.values())}',
                   'default_hooks.checkpoint.save_best=' +
                   (same[near[0]] if near else 'auto'))


@register_backend(WHOLE, force=True)
class WholeFileBackend(LocalBackend):
    """Backend for local files that writes them atomically.

    mmengine's own backend writes in place, so a kill leaves a truncated
    checkpoint.
    """

    def put(self, obj: bytes, filepath: str | Path):
        with replacing(Path(filepath)) as temporary:
            with open(temporary, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())  # before the file is renamed


class RemovalsLast:
    """File backend that delays removals until :meth:`flush`."""

    def __init__(self, backend: Any):
        self.backend = backend
        self.paths: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str):
        self.paths.append(path)

    def flush(self, keep: list[str | None]):
        for path in self.paths:
            if path not in keep and self.backend.isfile(path):
                self.backend.remove(path)


class NotSavedError(OSError):
    """Checkpoint could not be written; the text names the last valid one."""


def is_finite(model: torch.nn.Module) -> bool:
    """Whether all weights are finite on all processes."""
    return bool(of_all(
        all(bool(p.isfinite().all()) for p in model.parameters()), 'min'))


def of_all(value: int, op: str) -> int:
    """Return the ``'min'`` or ``'max'`` of a number over all processes."""
    reduced = torch.tensor(int(value))
    all_reduce(reduced, op)
    return int(reduced)


def fingerprint(model: torch.nn.Module) -> list[float]:
    """Return the sum of each parameter.

    Buffers are ignored: a ``SyncBuffersHook`` changes them permanently.
    """
    sums = [p.detach().float().sum() for p in model.parameters()]
    return torch.stack(sums).tolist()


def undo_swaps(model: torch.nn.Module, hooks: Sequence[Any],
               expected: list[float]) -> bool:
    """Undo changes that hooks made to the weights for an evaluation.

    An ``EMAHook`` swaps the weights with their averages during an evaluation.

    Args:
        model: Model. It is not changed if the expected weights are not found.
        hooks: Hooks in the order in which they were called.
        expected: Fingerprint of the model in training.

    Returns:
        Whether the weights are the expected ones.
    """
    undone: list[Callable] = []
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
    """mmengine's ``CheckpointHook`` with protection against failures.

    * Files are written atomically.
    * Older checkpoints are removed after the new one is complete, not before.
    * A full disk raises a one-line error; older checkpoints stay valid.
      Weights that are not finite are not saved.
    * The work dir is locked: a second run in it raises an error.
    * With gradient accumulation, checkpoints are saved at the end of a
      window. One that is due inside a window is saved a few iterations later.
    * SIGTERM, which Slurm and ``torchrun`` send before they kill a job, stops
      the training after the current iteration (with accumulation: window) on
      all processes, with exit code 143 and a checkpoint ``interrupted.pth``
      for ``--resume``. An evaluation stops after the current batch. Further
      signals within 5 seconds are ignored; a later one ends the process as it
      would without the hook.

    Args:
        *args: Arguments of ``CheckpointHook``.
        stop_on_sigterm: Whether to handle SIGTERM.
        **kwargs: Keyword arguments of ``CheckpointHook``.
    """
    backend_args: Any  # mmengine's
    file_backend: Any

    def __init__(self, *args, stop_on_sigterm: bool = True, **kwargs):
        super().__init__(*args, **kwargs)
        self.stop_on_sigterm = stop_on_sigterm
        self.request = StopRequest()
        self.saved_iter = -1
        self.is_due = False  # whether to save at the end of the window
        self.listens = False
        self.weights: list[float] | None = None  # see fingerprint
        self.can_stop_evaluation = False

    # Saving

    def before_run(self, runner):
        """Lock the work dir for training; tests do not need a lock."""
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
        """Handle errors while saving, and delay removals until it is done.

        Raises:
            ValueError: If weights are not finite.
            NotSavedError: If a file cannot be written. Names the last valid
                checkpoint.
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
        except NotSavedError:  # raised by a nested call
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
            for problem, fix in unknown_metrics(self.key_indicators, metrics):
                raise ValueError(f'{problem}; continue with --resume '
                                 f'--cfg-options {fix}')
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
        # All processes stop in the same iteration.
        if self.listens and of_all(bool(self.request), 'max'):
            self.stop(runner, runner.iter + 1)

    # Stopping

    def before_val(self, runner):
        """Save the fingerprint of the weights before any hook swaps them."""
        if self.listens:
            self.weights = fingerprint(runner.model)

    def before_val_epoch(self, runner):
        """Determine whether this evaluation can be stopped.

        All processes must stop together, so each of them needs at least one
        batch, and nothing can be saved while a window is open.
        """
        loop = runner.val_loop
        self.can_stop_evaluation = (
            self.listens and type(loop).run is ValLoop.run
            and bool(of_all(len(loop.dataloader), 'min'))
            and not window_is_open(runner))

    def after_val_iter(self, runner, batch_idx, *args, **kwargs):
        """Stop the evaluation if any process received SIGTERM.

        Processes differ in their number of batches and their speed, so they
        do not synchronise after each batch, but once: after their last batch,
        or as soon as the signal is announced.
        """
        if not self.can_stop_evaluation:
            return
        is_last = batch_idx + 1 == len(runner.val_dataloader)
        is_announced = self.request.is_announced()
        if (is_announced or is_last) and of_all(is_announced, 'max'):
            self.stop(runner, runner.iter)

    def stop(self, runner, done: int):
        """Save the state after ``done`` iterations and exit.

        Raises:
            SystemExit: With code 143.
        """
        runner.logger.warning(
            f'SIGTERM: stopped after iteration {done}, ' +
            self.save_for_stop(runner, done))
        barrier()  # no process exits before the file is complete
        raise SystemExit(EXIT_CODE)

    def save_for_stop(self, runner, done: int) -> str:
        """Save unless the state is already saved; describe where it is."""
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
    """Describe how to continue after a failure or a stop."""
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
    """Gather the state of a sharded optimizer in the first process."""
    gather = getattr(
        getattr(runner.optim_wrapper, 'optimizer', None),
        'consolidate_state_dict', None)
    if gather is not None and not is_model_wrapper(runner.optim_wrapper):
        gather(to=0)
