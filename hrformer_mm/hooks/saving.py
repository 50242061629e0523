# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checkpoints that a kill, a full disk or a scheduler cannot spoil."""
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Optional, Union

import torch
from mmengine.dist import all_reduce, barrier, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper

from ..checkpoints.files import replacing
from ..registry import HOOKS
from .resuming import candidates

INTERRUPTED = 'interrupted.pth'  # what a run that was told to stop leaves
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
    finite = torch.tensor(
        int(all(bool(p.isfinite().all()) for p in model.parameters())))
    all_reduce(finite, 'min')
    return bool(finite)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, for machines that fail.

    * A file appears under its name when it is complete.
    * Older checkpoints are removed after the new one is there, not before.
    * A disk that is full ends the training in one line; what was saved before
      stays valid. Weights that are not finite are not saved.
    * SIGTERM, with which Slurm and ``torchrun`` announce the end, ends the
      training after the running iteration, on all processes at once, with
      exit code 143 and a checkpoint ``interrupted.pth`` that ``--resume``
      takes. A second SIGTERM ends the process as it would without the hook.

    Args:
        stop_on_sigterm: Whether to do the last of these.
    """
    backend_args: Any  # mmengine's
    file_backend: Any

    def __init__(self, *args, stop_on_sigterm: bool = True, **kwargs):
        super().__init__(*args, **kwargs)
        self.stop_on_sigterm = stop_on_sigterm
        self.told_to_stop = False
        self.saved_iter = -1
        self.former_handler: Any = None

    # Saving

    def before_train(self, runner):
        if '://' not in str(self.out_dir or '') and \
                not self.file_client_args and not self.backend_args:
            self.backend_args = dict(backend=WHOLE)
        super().before_train(runner)
        if is_main_process() and self.backend_args == dict(backend=WHOLE):
            for rest in Path(self.out_dir).glob('.*.pth.*'):
                rest.unlink()  # of a process that was killed while it wrote
        if self.stop_on_sigterm:
            self.listen()

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

    # Being told to stop

    def listen(self):
        """Note SIGTERM instead of dying of it."""
        if threading.current_thread() is threading.main_thread():
            self.former_handler = signal.signal(signal.SIGTERM, self.note)

    def note(self, *_):
        self.told_to_stop = True
        self.restore_handler()

    def restore_handler(self):
        if self.former_handler is not None:
            signal.signal(signal.SIGTERM, self.former_handler)
            self.former_handler = None

    def after_train_iter(self, runner, *args, **kwargs):
        super().after_train_iter(runner, *args, **kwargs)
        if not self.stop_on_sigterm:
            return
        told = torch.tensor(int(self.told_to_stop))
        all_reduce(told, 'max')  # all leave in the same iteration
        if told.item():
            self.stop(runner, runner.iter + 1)
            barrier()  # nobody leaves before the file is there
            raise SystemExit(128 + signal.SIGTERM)

    def after_val_iter(self, runner, *args, **kwargs):
        # Processes may have different numbers of these, so they cannot agree
        # here: the first one decides, and the others leave quietly.
        if not self.told_to_stop:
            return
        if self.saved_iter != runner.iter:
            self.stop(runner, runner.iter)
        raise SystemExit(128 + signal.SIGTERM if is_main_process() else 0)

    def stop(self, runner, done: int):
        """Save the state after ``done`` iterations."""
        with self.saving(runner, done):
            runner.save_checkpoint(
                self.out_dir,
                INTERRUPTED,
                meta=dict(epoch=runner.epoch, iter=done),
                by_epoch=False,
                backend_args=self.backend_args)
            path = os.path.join(self.out_dir, INTERRUPTED)
            if is_main_process():
                WholeFileBackend().put(
                    path.encode(),
                    os.path.join(runner.work_dir, 'last_checkpoint'))
        runner.logger.warning(f'SIGTERM: stopped after iteration {done}, '
                              f'saved in {path}; --resume goes on from there')

    def after_train(self, runner):
        super().after_train(runner)
        self.restore_handler()


def advice(runner) -> str:
    """What to do after a failure, in words."""
    paths = candidates(runner.work_dir)
    return f'{paths[0]} is kept, and --resume goes on from it' if paths else (
        'no checkpoint was saved before')


def free_space(folder: str) -> str:
    try:
        status = os.statvfs(folder)
    except (OSError, AttributeError):
        return ''
    return f', {status.f_bavail * status.f_frsize / 2**20:.0f} MiB are free'


def gather_optimizer(runner):
    """Bring the parts of a sharded optimiser to the first process."""
    gather = getattr(
        getattr(runner.optim_wrapper, 'optimizer', None),
        'consolidate_state_dict', None)
    if gather is not None and not is_model_wrapper(runner.optim_wrapper):
        gather(to=0)
