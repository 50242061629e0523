# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check a config before training or testing starts.

Each error names the key of the config, or the file, in one line. Without the
checks, hooks and loops would fail on the same errors hours later.
"""
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from mmengine import registry as mm
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import DataLoader

from ..registry import MODELS
from ..tasks import SCOPES
from .dataset_leaves import class_of
from .suggest import arguments, did_you_mean, registered

# Parts of a config that training and testing require.
TRAINED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
TESTED = ('model', 'test_dataloader')
NUMBERS = {'int': int, 'float': float, 'bool': bool, 'None': type(None),
           'Tensor': Tensor}  # types by their names in annotations


def data_paths(dataset: Mapping,
               scope: str | None = None
               ) -> Iterator[tuple[str, str | None]]:
    """Yield files and folders that a dataset reads; a path may be empty."""
    parts = [dataset.get('dataset'), *(dataset.get('datasets') or ())]
    for part in parts:
        if isinstance(part, Mapping):
            yield from data_paths(part, scope)
    kind = class_of(dataset, scope)
    if kind is not None and dataset.get('download', True) and (
            'download' in arguments(kind)):
        return  # a dataset such as CIFAR10 may download its files
    # Only MMPretrain expands ~.
    user = os.path.expanduser if scope == 'mmpretrain' else str
    folder = user(dataset.get('data_root') or '')
    prefix = dataset.get('data_prefix') or {}
    prefixes = prefix if isinstance(prefix, dict) else {'data_prefix': prefix}
    below = {'ann_file': dataset.get('ann_file'), **prefixes}
    yield 'data_root', folder
    yield 'bbox_file', dataset.get('bbox_file')
    yield from ((word, os.path.join(folder, user(path)))
                for word, path in below.items()
                if path and isinstance(path, str))


def missing_data(cfg: Config, loader: str) -> Iterator[tuple[str, str]]:
    """Yield missing files and folders of a data loader, and advice."""
    part = cfg.get(loader)
    dataset = part['dataset'] if part else {}
    for word, path in data_paths(dataset, cfg.get('default_scope')):
        if path and '://' not in path and not os.path.exists(path):
            yield (f'the {word} of {loader} does not exist: {path}',
                   'put the data there (the README of the config has the '
                   'layout) or pass its folder with --data-root DIR')


def check_data_files(cfg: Config, *loaders: str):
    """Raise FileNotFoundError if a file of data loaders is missing."""
    for loader in loaders:
        for error in missing_data(cfg, loader):
            raise FileNotFoundError('; '.join(error))


def check_inputs(cfg: Config, *loaders: str):
    """Check that the data exists, but report errors of the model first."""
    try:
        check_data_files(cfg, *loaders)
    except FileNotFoundError:
        MODELS.build(dict(cfg.model, _scope_=cfg.default_scope))
        raise


def check_parts(cfg: Config, *parts: str):
    """Raise ValueError if a config lacks a required part."""
    for part in parts:
        if not isinstance(cfg.get(part), dict):
            raise ValueError(f'{cfg.filename} needs {part}=dict(...), but it '
                             f'is {cfg.get(part)!r}')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        part = cfg.get(loader)
        if part is not None and not (isinstance(part, dict) and isinstance(
                part.get('dataset'), dict)):
            raise ValueError(f'{loader} must be dict(dataset=dict(...), ...), '
                             f'got {part!r}')


def typed_parts(cfg: Config) -> Iterator[tuple[str, Any, Any]]:
    """Yield parts that are built late: key, part, and registry or class."""
    loop = 'EpochBasedTrainLoop' if cfg.train_cfg.get('by_epoch') else (
        'IterBasedTrainLoop')
    yield 'train_cfg', dict(dict(type=loop), **cfg.train_cfg), mm.LOOPS
    for name in ('train_dataloader', 'val_dataloader'):
        yield name, cfg.get(name), DataLoader
    optimizer = cfg.optim_wrapper.get('optimizer')
    yield 'optim_wrapper', cfg.optim_wrapper, mm.OPTIM_WRAPPERS
    yield 'optim_wrapper.optimizer', optimizer, mm.OPTIMIZERS
    hooks = cfg.get('default_hooks') or {}
    yield from ((f'default_hooks.{k}', v, mm.HOOKS) for k, v in hooks.items())
    for name, registry in (('custom_hooks', mm.HOOKS),
                           ('param_scheduler', mm.PARAM_SCHEDULERS)):
        several = cfg.get(name) or ()
        if isinstance(several, (list, tuple)):
            yield from ((f'{name}.{i}', part, registry)
                        for i, part in enumerate(several))


def number_types(annotation: Any) -> set[type]:
    """Return the types of an argument that takes only numbers, else none."""
    kinds = {annotation}
    if isinstance(annotation, str):  # from __future__ import annotations
        kinds = {NUMBERS.get(word.strip(), object)
                 for word in annotation.split('|')}
    elif get_origin(annotation) in (Union, UnionType):
        kinds = set(get_args(annotation))
    return kinds if kinds <= {*NUMBERS.values()} else set()


def misfit(value: Any, kinds: set[type]) -> str:
    """Describe what a value should be; return '' if its type is right."""
    is_real = bool(kinds & {float, Tensor})
    if not kinds or value is None or isinstance(value, int) or (isinstance(
            value, float) and (is_real or value.is_integer())):
        return ''
    if is_real:
        return 'a number'
    return 'a whole number' if int in kinds else 'True or False'


def wrong_types(cfg: Config) -> Iterator[str]:
    """Yield an error for each argument that must be a number and is not."""
    for key, part, source in typed_parts(cfg):
        if not isinstance(part, Mapping):
            continue
        scope = part.get('_scope_', cfg.get('default_scope'))
        kind, name = source, part.get('type')
        if isinstance(source, mm.Registry):
            kind = class_of(part, scope, source)
            if kind is None and isinstance(name, str):
                known = registered(source.children.get(scope, source), name)
                yield (f'{key}.type: {name} is not in the registry of '
                       f'{source.name}s{did_you_mean(name, known)}')
        annotations = arguments(kind) if kind else {}
        for name, value in part.items():
            wanted = misfit(value, number_types(annotations.get(name)))
            if wanted:
                yield f'{key}.{name} must be {wanted}, got {value!r}'
    for name in ('max_epochs', 'max_iters', 'val_interval'):
        value = cfg.train_cfg.get(name)
        if isinstance(value, (int, float)) and value < 1:
            yield f'train_cfg.{name} must be at least 1, got {value}'


def check_types(cfg: Config):
    """Raise ValueError for the first error of :func:`wrong_types`."""
    scope = cfg.get('default_scope')
    if scope is not None and not isinstance(scope, str):
        raise ValueError(f'default_scope must be one of {sorted(SCOPES)}, got '
                         f'{scope!r}')
    for error in wrong_types(cfg):
        raise ValueError(error)


def check_checkpoint(path: str):
    """Raise FileNotFoundError if a checkpoint is missing.

    The error lists the checkpoints in its folder.
    """
    if '://' in path or os.path.isfile(path):
        return
    beside = sorted(p.name for p in Path(path).parent.glob('*.pth'))
    found = f'its folder has {beside[-5:]}' if beside else (
        'its folder has no .pth file')
    raise FileNotFoundError(f'no checkpoint at {path}; {found}')
