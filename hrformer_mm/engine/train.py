# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What tools/train.py and tools/test.py do around mmengine's Runner.

They read a config, change it as the command line says, check that its data
and its framework are there, fit it to the machine, and hand it to the Runner,
which serves the configs of all three frameworks.
"""
import errno
import inspect
import os
import shutil
import time
import traceback
from argparse import Namespace
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Iterator, List, Mapping, Optional

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import dump
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..checkpoints.guard import guard_predictions
from ..checkpoints.schemes import protected_loading
from ..datasets.validation.class_folders import refuse_other_folders
from ..datasets.validation.common import name_loading_faults
from ..registry import EXTRAS, install_line
from ..tasks import get_task
from ..utils.config import bare_name, name_types
from ..utils.config_checks import (TESTED, TRAINED, check_checkpoint,
                                   check_inputs, check_parts, check_types)
from ..utils.paths import root
from ..utils.suggest import did_you_mean, suggest
from ..utils.tracebacks import logged_traceback
from . import distributed
from .hooks.locking import unlock_all
from .hooks.positions import check_filled
from .hooks.starting import START, check_resume_path, newest_checkpoint
from .optim import is_amp

# Top-level keys that are read from the config but are no Runner arguments.
RUNNER_KEYS = {
    'allow_random_head', 'auto_scale_lr', 'compile', 'find_unused_parameters',
    'model_wrapper_cfg', 'parallel', 'runner_type', 'strategy', 'sync_bn',
    'tta_model', 'tta_pipeline'
}
# How systems report a disk, a quota or a limit of file sizes that is reached.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Seconds between a broken connection and the signal that says who died.
SIGNAL_WAIT = 2


def near_configs(path: str) -> List[str]:
    """Return paths of configs whose names resemble that of a path."""
    found = {p.stem: p for p in root().glob('configs/[!_]*/*.py')}
    return [os.path.relpath(found[name])
            for name in get_close_matches(Path(path).stem, found, 3)]


def read_config(path: str) -> Config:
    """Read a config whose framework is installed.

    Raises:
        FileNotFoundError: If there is no such file; names the nearest rows.
        ImportError: If its framework is missing; gives the install line.
        ValueError: If it is no config; says why.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no config at {path}' + (
            suggest(near_configs(path))
            or '; the READMEs below configs list all'))
    try:
        cfg = name_types(Config.fromfile(path))
    except Exception as error:  # configs are programs, which raise anything
        raise ValueError(f'{path} cannot be read as a config: '
                         f'{type(error).__name__}: {error}') from error
    scope = cfg.get('default_scope')
    if scope in EXTRAS and find_spec(scope) is None:
        raise ImportError(
            f'{path} needs {scope}, which is not installed: '
            f'{install_line(EXTRAS[scope])}')
    return cfg


def merge_options(cfg: Config, options: Optional[Mapping[str, Any]]):
    """Merge ``--cfg-options``, whose keys must begin with known ones.

    Raises:
        ValueError: If the Runner would not read a key, or a key goes below a
            value that is not a dict.
    """
    known = {*cfg, *RUNNER_KEYS, *inspect.signature(Runner).parameters}
    for key, value in (options or {}).items():
        first = key.partition('.')[0]
        if first not in known:
            raise ValueError(f'--cfg-options {key}: neither the config nor '
                             f'the Runner has {first!r}' +
                             did_you_mean(first, known))
        try:
            cfg.merge_from_dict({key: value})
        except TypeError as error:
            raise ValueError(f'--cfg-options {key}={value}: a part of the key '
                             'names a value that has no keys') from error


def replace_prefix(value: Any, old: str, new: str) -> Any:
    """The nested value with all paths below ``old`` moved to ``new``."""
    if isinstance(value, str):
        moved = os.path.join(value, '').startswith(old)
        return os.path.join(new, value[len(old):]) if moved else value
    if isinstance(value, dict):
        return type(value)(
            (k, replace_prefix(v, old, new)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(replace_prefix(v, old, new) for v in value)
    return value


def set_data_root(cfg: Config, folder: str):
    """Move a config from its ``data_root`` to another folder.

    A config computes paths from ``data_root`` while it is read, so setting
    that one key later has no effect; all paths below it are moved here.

    Raises:
        ValueError: If the config has no ``data_root`` at its top.
    """
    if not isinstance(cfg.get('data_root'), str):
        raise ValueError(f'{cfg.filename} has no data_root at its top level, '
                         'so its data cannot be moved; set the data_root of '
                         'each data loader with --cfg-options')
    old, new = os.path.join(cfg.data_root, ''), os.path.join(folder, '')
    for key in list(cfg):
        cfg[key] = replace_prefix(cfg[key], old, new)


def set_work_dir(cfg: Config, work_dir: Optional[str]):
    """The command line wins, then the config, then ``work_dirs/NAME``."""
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join(
        'work_dirs', Path(cfg.filename).stem)


def set_resume(cfg: Config, resume: Optional[str]):
    """Resume from a checkpoint, or with 'auto' from the last of work_dir.

    Where there is none yet, 'auto' starts from ``load_from`` of the config,
    which is kept as ``start_from`` for that: to mmengine the two keys
    ``resume`` and ``load_from`` together name a checkpoint to resume from.

    Raises:
        FileNotFoundError: If the checkpoint is missing.
        ValueError: If it holds no state of a training.
    """
    if resume is None:
        return
    cfg.resume = True
    if resume != 'auto':
        sharded = os.path.isdir(resume) and cfg.get('strategy')
        if not sharded:  # a strategy may write one file a process
            if not os.path.isdir(resume):
                check_checkpoint(resume)
            check_resume_path(resume)
        cfg.load_from = resume
        return
    cfg[START], cfg.load_from = cfg.get('load_from'), None
    if not has_hook(cfg, 'ExactResumeHook') and newest_checkpoint(
            cfg.work_dir, MMLogger.get_current_instance()) is None:
        cfg.resume, cfg.load_from = False, cfg[START]


def has_hook(cfg: Config, name: str) -> bool:
    """Whether a config has a hook of this class."""
    hooks = [*(cfg.get('default_hooks') or {}).values(),
             *(cfg.get('custom_hooks') or ())]
    return any(bare_name(hook.get('type', '')) == name
               for hook in hooks if hook)


def use_amp(cfg: Config):
    """Train in mixed precision with a loss scale that adapts."""
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if not is_amp(kind) and bare_name(kind) != 'OptimWrapper':
        raise ValueError(f'--amp needs an optim_wrapper of type OptimWrapper '
                         f'or AmpOptimWrapper, got {kind}')
    cfg.optim_wrapper.type = 'hrformer_mm.AmpOptimWrapper'


def use_tensorboard(cfg: Config):
    """Log for TensorBoard besides what the config logs for.

    Raises:
        ImportError: If it is not installed.
    """
    if find_spec('tensorboard') is None:
        raise ImportError('--tensorboard needs: pip install tensorboard')
    backends = list(cfg.visualizer.get('vis_backends') or ())
    if not any(
            bare_name(b['type']) == 'TensorboardVisBackend' for b in backends):
        backends.append(dict(type='TensorboardVisBackend'))
    cfg.visualizer.vis_backends = backends


def scale_lr(cfg: Config):
    """Scale the learning rate by the batch over that of the recipe."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError('--auto-scale-lr needs the batch of the recipe, '
                         f'which {cfg.filename} does not have; add '
                         'auto_scale_lr=dict(base_batch_size=...)')
    cfg.auto_scale_lr.enable = True


def skip_validation(cfg: Config):
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def show_predictions(cfg: Config, show: bool, folder: Optional[str],
                     interval: int, wait_time: float):
    """Draw every interval-th prediction, in a window or into a folder.

    Raises:
        ValueError: For a framework other than the three.
    """
    task = get_task(cfg)
    scope = task.scope
    hook = dict(
        cfg.default_hooks.get('visualization', {}),
        type=task.visualization_hook,
        show=show,
        interval=interval,
        wait_time=wait_time)
    hook['draw' if scope == 'mmseg' else 'enable'] = True
    if folder and scope == 'mmseg':  # its hook has no folder of its own
        cfg.visualizer.save_dir = folder
    elif folder:
        hook['out_dir'] = os.path.abspath(folder)
    cfg.default_hooks.visualization = hook


def config_for(args: Namespace) -> Config:
    """The config of a command line with the flags that all tools take.

    Args:
        args: From a parser of :func:`hrformer_mm.utils.cli.make_parser`.
    """
    cfg = read_config(args.config)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    merge_options(cfg, args.cfg_options)
    return cfg


def config_to_run(args: Namespace) -> Config:
    """:func:`config_for`, with the flags that training and testing share."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = config_for(args)
    cfg.launcher = args.launcher
    set_work_dir(cfg, args.work_dir)
    if args.show or args.show_dir:
        show_predictions(cfg, args.show, args.show_dir, args.interval,
                         args.wait_time)
    return cfg


def use_tta(cfg: Config):
    """Test with the scales and flips of ``tta_pipeline``.

    Raises:
        ValueError: If the config has none.
    """
    if not ('tta_model' in cfg and 'tta_pipeline' in cfg):
        raise ValueError(
            f'{cfg.filename} has no tta_model and tta_pipeline. Pose rows '
            'flip by default (model.test_cfg.flip_test)')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(cfg.tta_model, module=cfg.model)


def dump_predictions(cfg: Config, path: str):
    """Add a metric that writes all predictions into a pickle.

    Raises:
        ValueError: If the path is not that of a pickle.
    """
    if not path.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--dump writes a .pkl or .pickle, got {path}')
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics,
                                          (list, tuple)) else [metrics]
    cfg.test_evaluator = [
        *metrics, dict(type='DumpResults', out_file_path=path)
    ]


def fit_machine(cfg: Config):
    """Let a config for GPUs run where there are none, with a notice.

    nccl and mmengine's own class for mixed precision need an accelerator;
    ours falls back by itself. Processes are joined here, see
    :func:`hrformer_mm.engine.distributed.join`.

    Raises:
        ValueError: If the process was not started by its launcher.
    """
    check_parallel(cfg)
    distributed.join(cfg)
    wrapper = cfg.get('optim_wrapper') or {}
    if distributed.has_no_gpu() and is_amp(wrapper.get('type')):
        wrapper['type'] = 'hrformer_mm.AmpOptimWrapper'  # of mmengine's, too


def check_parallel(cfg: Config):
    """Raise ValueError for values of ``parallel`` that version 0.1 had."""
    if cfg.get('parallel', 'ddp') != 'ddp':
        raise ValueError(
            f"parallel={cfg.parallel!r} is gone: for parameters in shards set "
            "runner_type='FlexibleRunner' and strategy of MMEngine, such as "
            "dict(type='FSDPStrategy')")


def build_runner(cfg: Config) -> Runner:
    """mmengine's Runner, or the one that ``runner_type`` names."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


@contextmanager
def one_error_for_dead_workers() -> Iterator[None]:
    """Say the same, and what to do, however the death of a worker is seen.

    Torch tells of it when the signal of the system comes. Before that a worker
    that was handing over a batch may be seen as a connection that broke, so
    the signal is waited for here, lest it come while that error is told.

    Raises:
        RuntimeError: If a process that loads data dies.
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
            f'a process that loads data died ({error}), most often for lack '
            'of memory: use fewer num_workers in the dataloader; a training '
            'continues with --resume') from error


@contextmanager
def one_error_for_full_disks(work_dir: str) -> Iterator[None]:
    """Name the folder where a log could not be written.

    Writing to an open file fails without its path. Checkpoints have an error
    of their own.

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
    """Release the work dir, also for processes that outlive an error."""
    try:
        yield
    finally:
        unlock_all()


def build_train_data(runner: Any):
    """Build the training data and check that they make a batch.

    The Runner would build them in the same way, and then schedules whose
    epochs have no iteration.
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
    """Check, fit and train; see :mod:`.checks` and :func:`fit_machine`.

    Raises:
        FileNotFoundError: For data and pretrained weights.
        ValueError: For class folders that differ, for data that make no
            batch, and for what the model or the Runner does not take.
        RuntimeError: If a process that loads data dies.
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


def test(cfg: Config, checkpoint: str, out: Optional[str] = None):
    """Check, fit and evaluate a checkpoint on the test data.

    Args:
        cfg: A config that is not used again.
        checkpoint: Path or URL.
        out: A json file for the metrics.

    Returns:
        The metrics by name.

    Raises:
        FileNotFoundError: For the checkpoint and the data.
        RuntimeError: If the checkpoint lacks parameters of the model, unless
            the config has ``allow_random_head=True``.
    """
    check_checkpoint(checkpoint)
    check_parts(cfg, *TESTED)
    check_inputs(cfg, 'test_dataloader')
    refuse_other_folders(cfg, 'train_dataloader', 'test_dataloader')
    cfg.load_from, cfg.resume = checkpoint, False
    fit_machine(cfg)
    runner = build_runner(cfg)
    guard_predictions(runner.model, cfg.get('allow_random_head', False))
    with logged_traceback(runner), one_error_for_dead_workers(), \
            protected_loading(), name_loading_faults(cfg, 'test_dataloader'):
        metrics = runner.test()
    if out and is_main_process():
        dump(metrics, out, file_format='json')
    return metrics
