# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checks of the inputs of a training: config, machine, data and weights."""
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model.weight_init import PretrainedInit
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    TRANSFORMS,
    VISUALIZERS,
)
from mmengine.runner import load_checkpoint
from torch import nn

from ...checkpoints import load_pretrained
from ...checkpoints.convert import first_few
from ...checkpoints.schemes import protected_loading
from ...core.hrformer import HRFormer
from ...datasets.validation.common import (
    LOADERS,
    check_datasets,
    describe_summary,
    spread_samples,
)
from ...tasks import TASKS
from ...utils.config import bare_name
from ...utils.config_checks import data_paths, wrong_types
from ..hooks.starting import START, newest_checkpoint
from ..optim import is_amp, supports_amp
from ..train import check_parallel, fit_machine
from .report import FAIL, OK, SKIP, WARN, Finding, Flight, attempt

FILES = 100  # number of files of each dataset to check
READ = 4  # number of samples to send through the pipeline
PROBLEMS = 5  # number of problems of each dataset to print
MORE = 'python tools/check_dataset.py CONFIG checks all files'


def items_of(value: Any) -> list:
    """Return a config value (None, one item or a list) as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def fitted(cfg: Config) -> Config:
    """Return a copy of a config, adapted to one process on this machine."""
    cfg = deepcopy(cfg)
    cfg.pop('parallel', None)
    fit_machine(cfg)
    return cfg


def build_parts(flight: Flight) -> Iterator[str]:
    """Build all parts of a training except data; yield the errors."""
    wrong = list(wrong_types(flight.cfg))
    yield from wrong
    cfg = fitted(flight.cfg)
    flight.model, error = attempt('model', MODELS.build, cfg.model)
    yield error
    # Hooks that draw need it.
    drawing = cfg.get('visualizer') or dict(type='Visualizer')
    drawing.update(name=flight.folder, save_dir=flight.folder)
    yield attempt('visualizer', VISUALIZERS.build, drawing)[1]
    if flight.model is not None:
        yield attempt('optim_wrapper', build_optim_wrapper, flight.model,
                      cfg.optim_wrapper)[1]
    hooks = [*cfg.get('default_hooks', {}).items()]
    hooks += [('custom_hooks', h) for h in items_of(cfg.get('custom_hooks'))]
    for name, hook in hooks:
        reported = any(error.startswith(f'default_hooks.{name}.')
                       for error in wrong)
        if hook is not None and not reported:
            hook.pop('priority', None)
            yield attempt(f'hook {name}', HOOKS.build, hook)[1]
    for loader in flight.loaders:
        for step in cfg[loader].dataset.get('pipeline', ()):
            yield attempt(f'pipeline of {loader}', TRANSFORMS.build, step)[1]
    for metric in items_of(cfg.get('val_evaluator')):
        yield attempt('val_evaluator', METRICS.build, metric)[1]


def check_config(flight: Flight) -> Iterator[Finding]:
    errors = [error for error in build_parts(flight) if error]
    flight.is_built = not errors
    for error in errors:
        yield Finding('config', FAIL, error)
    if not errors:
        yield Finding(
            'config', OK, f'{type(flight.model).__name__}, optimizer, hooks, '
            'pipelines and metrics can be built')


def check_machine(flight: Flight) -> Iterator[Finding]:
    """Adapt the config to the machine, as the run does.

    Weights and optimizer states that processes would share are not shared
    here, in a single process; the memory found is an upper bound.
    """
    _, error = attempt('parallel', check_parallel, flight.cfg)
    if error:
        yield Finding('machine', FAIL, error)
    flight.cfg = fitted(flight.cfg)
    wrapper = flight.cfg.optim_wrapper
    wants_amp, precision = is_amp(wrapper.get('type')), 'full precision'
    if wants_amp and supports_amp():
        precision = f"mixed precision ({wrapper.get('dtype', 'float16')})"
    found = f'{get_device()}, {precision}, processes: {flight.processes}'
    if supports_amp() or not wants_amp:
        yield Finding('machine', OK, found)
    else:
        yield Finding(
            'machine', WARN, f'{found}; the config wants mixed precision',
            'repeat this on a machine with a GPU; steps, memory and hours '
            'below are for this machine')


def missing_data(cfg: Config, loader: str) -> Iterator[Finding]:
    for word, path in data_paths(cfg[loader].dataset,
                                 cfg.get('default_scope')):
        if path and '://' not in path and not os.path.exists(path):
            yield Finding(
                'data', FAIL, f'the {word} of {loader} does not exist: {path}',
                'put the data there (the README of the config has the layout) '
                'or set its folder with --data-root DIR')


def check_paths(flight: Flight) -> Iterator[Finding]:
    """Check that the files and folders of the datasets exist, unread."""
    for loader in flight.loaders:
        missing = list(missing_data(flight.cfg, loader))
        yield from missing or [
            Finding('data', OK, f'{loader}: files and folders exist')]


def check_files(flight: Flight, loaders: list[str]) -> Iterator[Finding]:
    """Check a sample of the files, like ``tools/check_dataset.py``.

    Loaders are checked together, since their classes must agree.
    """
    alone = deepcopy(flight.cfg)
    for other in set(LOADERS) - set(loaders):
        alone[other] = None
    summaries, error = attempt('files', check_datasets, alone, FILES)
    if error:  # a failure of the check itself does not fail the run
        yield Finding('data', SKIP, f'not checked: {error}')
        return
    for key, summary in summaries.items():
        problems = sorted(summary.problems, key=lambda p: not p.fatal)
        shown = [*problems[:PROBLEMS], *summary.warnings[:PROBLEMS]]
        for problem in shown:
            yield Finding('data', FAIL if problem.fatal else WARN,
                          f'{key}: {problem}', MORE * (problem is shown[-1]))
        if summary.skipped:
            yield Finding('data', SKIP,
                          f'{key}: not checked: {summary.skipped}')
        elif not shown:
            yield Finding(
                'data', OK,
                f'{key}: {describe_summary(summary)[0]} in a valid sample')
        for note in summary.notes:
            yield Finding('data', OK, f'{key}: {note}')


def read_samples(flight: Flight, loader: str):
    """Send a few samples of a dataset through its pipeline.

    Raises:
        ValueError: If the dataset is empty.
    """
    dataset = DATASETS.build(deepcopy(flight.cfg[loader].dataset))
    if not len(dataset):
        raise ValueError('the dataset has no samples')
    few = spread_samples(len(dataset), READ)
    began = time.perf_counter()
    for index in few:
        dataset[index]
    flight.reading[loader] = (time.perf_counter() - began) / len(few)
    flight.sizes[loader] = len(dataset)


def check_data(flight: Flight) -> Iterator[Finding]:
    present, errors = [], []
    for loader in flight.loaders:
        missing = list(missing_data(flight.cfg, loader))
        yield from missing
        if missing:
            continue
        present.append(loader)
        _, error = attempt(loader, read_samples, flight, loader)
        if error:
            errors.append((loader, error))
            continue
        yield Finding(
            'data', OK, f'{loader}: {flight.sizes[loader]} samples, '
            f'{1000 * flight.reading[loader]:.0f} ms to read and augment one')
    found: list[Finding] = []
    if present and flight.cfg.get('default_scope') in TASKS:
        found = list(check_files(flight, present))
    for loader, error in errors:
        # The same error with the name of its file is more helpful.
        if not any(f.state == FAIL and f.found.startswith(loader)
                   for f in found):
            yield Finding('data', FAIL, error)
    yield from found


class Words(logging.Handler):
    """Collect log messages."""

    def __init__(self):
        super().__init__()
        self.text = ''

    def emit(self, record: logging.LogRecord):
        self.text += record.getMessage() + '\n'

    def names(self, pattern: str) -> list[str]:
        """Return the tensor names that follow a phrase of MMEngine."""
        found = re.findall(pattern + r':? (.*)', self.text)
        return [name for line in found for name in re.split(r', ', line)]


@contextmanager
def logged() -> Iterator[Words]:
    """Collect the messages of the current logger."""
    logger, words = MMLogger.get_current_instance(), Words()
    logger.addHandler(words)
    try:
        yield words
    finally:
        logger.removeHandler(words)


def load_loosely(module: nn.Module, load: Callable) -> tuple[str, str]:
    """Load weights like MMEngine, which continues even if few of them match.

    Args:
        module: Module that takes the weights.
        load: Called with the module.

    Returns:
        State and text of a finding.
    """
    with logged() as words:
        load(module)
    missing = words.names('missing keys in source state_dict')
    ignored = words.names('unexpected key in source state_dict')
    misfits = re.findall(r'size mismatch for (\S+):', words.text)
    own = [k for k in module.state_dict() if 'num_batches_tracked' not in k]
    anew = [*missing, *misfits]
    found = (f'{len(own) - len(anew)} of {len(own)} tensors matched, '
             f'{len(ignored)} of the file ignored{first_few(ignored)}')
    if not anew:
        return OK, found
    found += f', {len(anew)} newly initialized{first_few(anew)}'
    return (WARN if len(anew) < len(own) else FAIL), found


def load_backbone(backbone: HRFormer, arguments: Mapping) -> tuple[str, str]:
    """Load weights that must cover a backbone; see :func:`load_loosely`."""
    report = load_pretrained(backbone, **arguments)
    return (WARN if report.missing else OK), str(report)


def files_to_load(flight: Flight) -> Iterator[tuple[str, Callable]]:
    """Yield path and load function of each checkpoint that a run loads."""
    assert flight.model is not None
    for module in flight.model.modules():
        for init in items_of(getattr(module, 'init_cfg', None)):
            if bare_name(init.get('type', '')) != 'Pretrained':
                continue
            arguments = {k: v for k, v in init.items() if k != 'type'}
            load = partial(load_loosely, module, PretrainedInit(**arguments))
            if isinstance(module, HRFormer):
                load = partial(load_backbone, module, arguments)
            yield init['checkpoint'], load
    path = flight.cfg.get('load_from')
    if flight.cfg.get('resume') and not path:
        path = newest_checkpoint(
            flight.cfg.work_dir,
            MMLogger.get_current_instance()) or flight.cfg.get(START)
    if path and not os.path.isdir(path):  # a folder has shards of a strategy
        yield path, partial(
            load_loosely, flight.model,
            partial(load_checkpoint, filename=path, map_location='cpu',
                    logger='current'))


def check_weights(flight: Flight) -> Iterator[Finding]:
    if flight.model is None:
        yield Finding('weights', SKIP, 'there is no model to load them into')
        return
    files = list(files_to_load(flight))
    for path, load in files:
        with protected_loading():
            result, error = attempt(path, load)
        if error:
            yield Finding('weights', FAIL, error)
            continue
        state, found = result
        yield Finding(
            'weights', state, f'{path}: {found}', '' if state == OK else
            'a head is initialized anew if classes or keypoints differ; if '
            'you did not expect this, the weights are of another model')
    if not files:
        yield Finding('weights', OK, 'none: training starts from scratch')
