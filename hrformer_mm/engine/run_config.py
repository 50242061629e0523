# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Read the config of a run and apply the flags of the command line to it."""
import inspect
import os
from argparse import Namespace
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from ..registry import EXTRAS, install_line
from ..tasks import get_task
from ..utils.config import bare_name, name_types
from ..utils.config_checks import check_checkpoint
from ..utils.paths import configs_by_name, moved_base
from ..utils.suggest import did_you_mean, suggest
from .hooks.starting import START, check_resume_path, newest_checkpoint
from .optim import is_amp

# Top-level keys of a config that are not arguments of the Runner.
RUNNER_KEYS = {
    'allow_random_head', 'auto_scale_lr', 'compile', 'find_unused_parameters',
    'model_wrapper_cfg', 'parallel', 'runner_type', 'strategy', 'sync_bn',
    'tta_model', 'tta_pipeline'
}


def near_configs(path: str) -> list[str]:
    """Return configs similar to a path, as paths, or to a name, as names."""
    found, is_name = configs_by_name(), Path(path).stem == path
    return [name if is_name else os.path.relpath(found[name])
            for name in get_close_matches(Path(path).stem, found, 3)]


def read_config(path: str) -> Config:
    """Read a config whose framework is installed.

    Args:
        path: Path of a config, or the name of one of this package.

    Raises:
        FileNotFoundError: If the file is missing. Suggests similar configs.
        ImportError: If its framework is missing. Has the install command.
        ValueError: If it is not a valid config.
    """
    if not Path(path).is_file():
        path = str(configs_by_name().get(path, path))
    if not Path(path).is_file():
        raise FileNotFoundError(f'there is no config at {path}' + (
            suggest(near_configs(path))
            or '; the READMEs in configs list all of them'))
    try:
        cfg = name_types(Config.fromfile(path))
    except Exception as error:  # configs are programs, which raise anything
        raise ValueError(f'{path} cannot be read as a config: '
                         f'{type(error).__name__}: {error}'
                         f'{moved_base(error)}') from error
    scope = cfg.get('default_scope')
    if scope in EXTRAS and find_spec(scope) is None:
        raise ImportError(
            f'{path} needs {scope}, which is not installed: '
            f'{install_line(EXTRAS[scope])}')
    return cfg


def merge_options(cfg: Config, options: Mapping[str, Any] | None):
    """Merge ``--cfg-options``; their top-level keys must be known.

    Raises:
        ValueError: If neither the config nor the Runner has a key, or if a
            part of a key is not a dict.
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
            raise ValueError(f'--cfg-options {key}={value}: '
                             f'{leaf_of(cfg, key)!r} is not a dict') from error


def leaf_of(cfg: Config, key: str) -> str:
    """Return the first part of a dotted key whose value is not a dict."""
    parts = key.split('.')
    value: Any = cfg
    for end, part in enumerate(parts):
        if isinstance(value, list) and part.isdigit():
            value = value[int(part)]
        elif isinstance(value, (dict, Config)):
            value = value.get(part)
        else:
            return '.'.join(parts[:end])
    return key


def replace_prefix(value: Any, old: str, new: str) -> Any:
    """Replace the folder ``old`` by ``new`` in all paths of a nested value."""
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
    """Replace the ``data_root`` of a config.

    Paths are computed from ``data_root`` while the config is read, so setting
    only this key has no effect. Here all paths below it are replaced.

    Raises:
        ValueError: If the config has no ``data_root`` at its top level.
    """
    if not isinstance(cfg.get('data_root'), str):
        raise ValueError(f'{cfg.filename} has no data_root at its top level, '
                         'so it cannot be replaced; set the data_root of each '
                         'dataset with --cfg-options')
    old, new = os.path.join(cfg.data_root, ''), os.path.join(folder, '')
    for key in list(cfg):
        cfg[key] = replace_prefix(cfg[key], old, new)


def set_work_dir(cfg: Config, work_dir: str | None):
    """Set the work dir: argument, else config, else ``work_dirs/NAME``."""
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join(
        'work_dirs', Path(cfg.filename).stem)


def set_resume(cfg: Config, resume: str | None):
    """Resume from a checkpoint, or with 'auto' from the last one in work_dir.

    If there is none yet, 'auto' starts from ``load_from`` of the config. It
    is stored as ``start_from``, because mmengine takes ``load_from`` together
    with ``resume`` as the checkpoint to resume from.

    Raises:
        FileNotFoundError: If the checkpoint is missing.
        ValueError: If it has no training state.
    """
    if resume is None:
        return
    cfg.resume = True
    if resume != 'auto':
        sharded = os.path.isdir(resume) and cfg.get('strategy')
        if not sharded:  # a strategy may write one file per process
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
    """Train in mixed precision with a dynamic loss scale.

    Raises:
        ValueError: If the optimizer wrapper is of another type.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if not is_amp(kind) and bare_name(kind) != 'OptimWrapper':
        raise ValueError(f'--amp needs an optim_wrapper of type OptimWrapper '
                         f'or AmpOptimWrapper, got {kind}')
    cfg.optim_wrapper.type = 'hrformer_mm.AmpOptimWrapper'


def use_tensorboard(cfg: Config):
    """Add TensorBoard to the visualization backends of a config.

    Raises:
        ImportError: If TensorBoard is not installed.
    """
    if find_spec('tensorboard') is None:
        raise ImportError('--tensorboard needs: pip install tensorboard')
    backends = list(cfg.visualizer.get('vis_backends') or ())
    if not any(
            bare_name(b['type']) == 'TensorboardVisBackend' for b in backends):
        backends.append(dict(type='TensorboardVisBackend'))
    cfg.visualizer.vis_backends = backends


def scale_lr(cfg: Config):
    """Scale the learning rate by the ratio of batch to base batch size.

    Raises:
        ValueError: If the config has no ``auto_scale_lr.base_batch_size``.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ValueError('--auto-scale-lr needs the batch size of the recipe, '
                         f'which {cfg.filename} does not have; add '
                         'auto_scale_lr=dict(base_batch_size=...)')
    cfg.auto_scale_lr.enable = True


def skip_validation(cfg: Config):
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def show_predictions(cfg: Config, show: bool, folder: str | None,
                     interval: int, wait_time: float):
    """Draw every interval-th prediction, in a window or to a folder.

    Raises:
        ValueError: If the framework is not supported.
    """
    task = get_task(cfg)
    scope = task.scope
    hook = dict(
        cfg.default_hooks.get('visualization', {}),
        type=task.visualization_hook,
        show=show,
        interval=interval,
        wait_time=wait_time)
    hook['draw' if scope in ('mmseg', 'mmdet') else 'enable'] = True
    if folder and scope == 'mmseg':  # its hook has no folder of its own
        cfg.visualizer.save_dir = folder
    elif folder:
        key = 'test_out_dir' if scope == 'mmdet' else 'out_dir'
        hook[key] = os.path.abspath(folder)
    cfg.default_hooks.visualization = hook


def config_for(args: Namespace) -> Config:
    """Read the config of a command line and apply the common flags.

    Args:
        args: Arguments of :func:`hrformer_mm.utils.cli.dataset_parser`.
    """
    cfg = read_config(args.config)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    merge_options(cfg, args.cfg_options)
    return cfg


def config_to_run(args: Namespace) -> Config:
    """Return :func:`config_for` with the flags of training and testing."""
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
        ValueError: If the config has no ``tta_model`` and ``tta_pipeline``.
    """
    if not ('tta_model' in cfg and 'tta_pipeline' in cfg):
        raise ValueError(
            f'{cfg.filename} has no tta_model and tta_pipeline. Pose configs '
            'flip by default (model.test_cfg.flip_test)')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(cfg.tta_model, module=cfg.model)


def dump_predictions(cfg: Config, path: str):
    """Add a metric that writes all predictions to a pickle.

    Raises:
        ValueError: If the path does not end with ``.pkl`` or ``.pickle``.
    """
    if not path.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--dump writes a .pkl or .pickle, got {path}')
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics,
                                          (list, tuple)) else [metrics]
    cfg.test_evaluator = [
        *metrics, dict(type='DumpResults', out_file_path=path)
    ]
