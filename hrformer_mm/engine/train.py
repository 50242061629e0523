# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train and test with mmengine's Runner, as in tools/train.py and test.py.

The tools read a config and apply the command line (:mod:`.run_config`), adapt
the config to the machine, and run the Runner, which supports the configs of
all frameworks.
"""
import errno
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import dump
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints.guard import guard_predictions
from ..checkpoints.schemes import protected_loading
from ..datasets.validation.class_folders import refuse_other_folders
from ..datasets.validation.common import name_loading_faults
from ..utils.config_checks import (
    TESTED,
    TRAINED,
    check_checkpoint,
    check_inputs,
    check_parts,
    check_types,
)
from ..utils.tracebacks import logged_traceback
from . import distributed
from .hooks.locking import unlock_all
from .hooks.positions import check_filled
from .optim import is_amp
from .run_config import (  # noqa: F401, the names of 0.2
    config_for,
    config_to_run,
    dump_predictions,
    merge_options,
    read_config,
    scale_lr,
    set_data_root,
    set_resume,
    set_work_dir,
    show_predictions,
    skip_validation,
    use_amp,
    use_tensorboard,
    use_tta,
)

# Errors for a full disk, an exceeded quota or an exceeded file size.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Seconds from a broken connection to the signal that names the dead worker.
SIGNAL_WAIT = 2


def fit_machine(cfg: Config):
    """Adapt a config to the machine and join its processes.

    nccl and mmengine's class for mixed precision require a GPU. Without one,
    gloo and our class are used, which log a notice. See also
    :func:`hrformer_mm.engine.distributed.join`.

    Raises:
        ValueError: If the process was not started by its launcher.
    """
    check_parallel(cfg)
    distributed.join(cfg)
    wrapper = cfg.get('optim_wrapper') or {}
    if distributed.has_no_gpu() and is_amp(wrapper.get('type')):
        wrapper['type'] = 'hrformer_mm.AmpOptimWrapper'  # replaces mmengine's


def check_parallel(cfg: Config):
    """Raise ValueError for values of ``parallel`` that version 0.1 had."""
    if cfg.get('parallel', 'ddp') != 'ddp':
        raise ValueError(
            f'parallel={cfg.parallel!r} is no longer supported: to shard '
            "parameters, set runner_type='FlexibleRunner' and a strategy of "
            "MMEngine, such as dict(type='FSDPStrategy')")


def build_runner(cfg: Config) -> Runner:
    """Build mmengine's Runner, or the one that ``runner_type`` names."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


@contextmanager
def one_error_for_dead_workers() -> Iterator[None]:
    """Raise the same error for each way in which a worker's death shows.

    PyTorch raises an error when it receives SIGCHLD. If the worker was sending
    a batch, a broken connection may show first. Then SIGCHLD is awaited here,
    so that it does not interrupt the report of that error.

    Raises:
        RuntimeError: If a data loader worker dies.
    """
    try:
        try:
            yield
        except (OSError, EOFError) as error:
            if any(frame.name == '_try_get_data'
                   for frame in traceback.extract_tb(error.__traceback__)):
                time.sleep(SIGNAL_WAIT)
                raise RuntimeError('DataLoader worker hung up') from error
            raise
    except RuntimeError as error:
        if not str(error).startswith('DataLoader worker'):
            raise
        raise RuntimeError(
            f'a data loader worker died ({error}), usually out of memory: '
            'reduce num_workers of the data loader; continue training with '
            '--resume') from error


@contextmanager
def one_error_for_full_disks(work_dir: str) -> Iterator[None]:
    """Add the folder to errors about logs on a full disk.

    Errors of writing to an open file do not have its path. Checkpoints have
    an error of their own.

    Raises:
        OSError: If a disk or quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        free = shutil.disk_usage(work_dir).free / 2**20
        raise OSError(
            error.errno,
            f'a log could not be written below {work_dir} ({error.strerror}, '
            f'{free:.0f} MiB are free): make room there and continue with '
            '--resume') from error


@contextmanager
def closing_locks() -> Iterator[None]:
    """Release the work dir at the end, even after an error."""
    try:
        yield
    finally:
        unlock_all()


def build_train_data(runner: Any):
    """Build the training data loader and check that it has a batch.

    The Runner would build it in the same way, but then fail to build schedules
    for epochs without iterations.
    """
    loader = runner._train_dataloader
    if isinstance(loader, dict):
        loader = runner.build_dataloader(
            loader,
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False))
    check_filled(loader)
    runner._train_dataloader = loader


def train(cfg: Config):
    """Check a config, adapt it to the machine and train.

    See :mod:`hrformer_mm.utils.config_checks` and :func:`fit_machine`.

    Raises:
        FileNotFoundError: If data or pretrained weights are missing.
        ValueError: If class folders differ, the data do not fill a batch, or
            arguments of the model or the Runner are invalid.
        RuntimeError: If a data loader worker dies.
    """
    check_parts(cfg, *TRAINED)
    check_types(cfg)
    check_inputs(cfg, 'train_dataloader', 'val_dataloader')
    refuse_other_folders(cfg, 'train_dataloader', 'val_dataloader')
    fit_machine(cfg)
    runner = build_runner(cfg)
    with logged_traceback(runner), one_error_for_full_disks(cfg.work_dir), \
            one_error_for_dead_workers(), protected_loading(), \
            name_loading_faults(cfg, 'train_dataloader', 'val_dataloader'), \
            closing_locks():
        build_train_data(runner)
        runner.train()


def test(cfg: Config,
         checkpoint: str,
         out: str | None = None,
         prepare: Callable[[Any], None] | None = None):
    """Check a config and evaluate a checkpoint on the test data.

    Args:
        cfg: Config, changed in place.
        checkpoint: Path or URL of the checkpoint.
        out: Path of a JSON file to write the metrics to.
        prepare: Called with the model instead of loading the checkpoint.

    Returns:
        Metrics by name.

    Raises:
        FileNotFoundError: If the checkpoint or the data are missing.
        RuntimeError: If the checkpoint lacks parameters of the model, unless
            the config has ``allow_random_head=True``.
    """
    check_checkpoint(checkpoint)
    check_parts(cfg, *TESTED)
    check_inputs(cfg, 'test_dataloader')
    refuse_other_folders(cfg, 'train_dataloader', 'test_dataloader')
    cfg.load_from, cfg.resume = None if prepare else checkpoint, False
    fit_machine(cfg)
    runner = build_runner(cfg)
    if prepare:
        prepare(runner.model)
    guard_predictions(runner.model, cfg.get('allow_random_head', False))
    with logged_traceback(runner), one_error_for_dead_workers(), \
            protected_loading(), name_loading_faults(cfg, 'test_dataloader'):
        metrics = runner.test()
    if out and is_main_process():
        dump(metrics, out, file_format='json')
    return metrics
