# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checks of the inputs of a training: config, machine, data and weights."""
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from logging.handlers import BufferingHandler
from typing import Any

from mmengine import registry as mm
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model.weight_init import PretrainedInit
from mmengine.optim import build_optim_wrapper
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
from ...utils.config_checks import missing_data, typed_parts, wrong_types
from ..hooks.starting import START, newest_checkpoint
from ..optim import is_amp, supports_amp
from ..train import check_parallel, fit_machine
from .report import FAIL, OK, SKIP, WARN, Flight, attempt, findings_about

FILES = 100  # number of files of each dataset to check
READ = 4  # number of samples to send through the pipeline
PROBLEMS = 5  # number of problems of each dataset to print
MORE = 'python tools/check_dataset.py CONFIG checks all files'
# Registries of the parts that are built without a model.
BUILT = (mm.VISUALIZERS, mm.HOOKS, mm.TRANSFORMS, mm.METRICS)


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
    """Build all parts of a training except data; yield the errors or ''."""
    wrong = list(wrong_types(flight.cfg))
    yield from wrong
    cfg = fitted(flight.cfg)
    flight.model, error = attempt('model', mm.MODELS.build, cfg.model)
    yield error
    if flight.model is not None:
        yield attempt('optim_wrapper', build_optim_wrapper, flight.model,
                      cfg.optim_wrapper)[1]
    drawing = dict(cfg.get('visualizer') or dict(type='Visualizer'),
                   name=flight.folder, save_dir=flight.folder)
    # Hooks that draw need the visualizer.
    parts = [('visualizer', drawing, mm.VISUALIZERS), *typed_parts(cfg)]
    parts += [(f'pipeline of {loader}', step, mm.TRANSFORMS)
              for loader in flight.loaders
              for step in cfg[loader].dataset.get('pipeline', ())]
    parts += [('val_evaluator', metric, mm.METRICS)
              for metric in items_of(cfg.get('val_evaluator'))]
    for key, part, registry in parts:
        reported = any(error.startswith(f'{key}.') for error in wrong)
        if part is not None and registry in BUILT and not reported:
            if registry is mm.HOOKS:
                part = {k: v for k, v in part.items() if k != 'priority'}
            yield attempt(key, registry.build, part)[1]


@findings_about('config')
def check_config(flight: Flight) -> Iterator[tuple]:
    errors = [error for error in build_parts(flight) if error]
    flight.is_built = not errors
    yield from ((FAIL, error) for error in errors)
    if not errors:
        yield OK, (f'{type(flight.model).__name__}, optimizer, hooks, '
                   'pipelines and metrics can be built')


@findings_about('machine')
def check_machine(flight: Flight) -> Iterator[tuple]:
    """Adapt the config to the machine, as the run does."""
    original, flight.cfg = flight.cfg, fitted(flight.cfg)
    wrapper = flight.cfg.optim_wrapper
    wants_amp, precision = is_amp(wrapper.get('type')), 'full precision'
    if wants_amp and supports_amp():
        precision = f"mixed precision ({wrapper.get('dtype', 'float16')})"
    found = f'{get_device()}, {precision}, processes: {flight.processes}'
    if supports_amp() or not wants_amp:
        yield OK, found
    else:
        yield (WARN, f'{found}; the config wants mixed precision',
               'repeat this on a machine with a GPU; steps, memory and hours '
               'below are for this machine')
    check_parallel(original)


@findings_about('data')
def check_paths(flight: Flight) -> Iterator[tuple]:
    """Check that the files and folders of the datasets exist, unread."""
    for loader in flight.loaders:
        missing = list(missing_data(flight.cfg, loader))
        yield from ((FAIL, *error) for error in missing)
        if not missing:
            yield OK, f'{loader}: files and folders exist'


def check_files(flight: Flight, loaders: list[str]) -> Iterator[tuple]:
    """Check a sample of the files, like ``tools/check_dataset.py``.

    Loaders are checked together, since their classes must agree.
    """
    alone = deepcopy(flight.cfg)
    for other in set(LOADERS) - set(loaders):
        alone[other] = None
    summaries, error = attempt('files', check_datasets, alone, FILES)
    if error:  # a failure of the check itself does not fail the run
        yield SKIP, f'not checked: {error}'
    for key, summary in (summaries or {}).items():
        problems = sorted(summary.problems, key=lambda p: not p.fatal)
        shown = [*problems[:PROBLEMS], *summary.warnings[:PROBLEMS]]
        for problem in shown:
            yield (FAIL if problem.fatal else WARN, f'{key}: {problem}',
                   MORE * (problem is shown[-1]))
        if summary.skipped:
            yield SKIP, f'{key}: not checked: {summary.skipped}'
        elif not shown:
            counts = describe_summary(summary)[0]
            yield OK, f'{key}: {counts} in a valid sample'
        yield from ((OK, f'{key}: {note}') for note in summary.notes)


def read_samples(flight: Flight, loader: str):
    """Send a few samples of a dataset through its pipeline."""
    dataset = mm.DATASETS.build(deepcopy(flight.cfg[loader].dataset))
    if not len(dataset):
        raise ValueError('the dataset has no samples')
    few = spread_samples(len(dataset), READ)
    began = time.perf_counter()
    for index in few:
        dataset[index]
    flight.reading[loader] = (time.perf_counter() - began) / len(few)
    flight.sizes[loader] = len(dataset)


@findings_about('data')
def check_data(flight: Flight) -> Iterator[tuple]:
    present, errors = [], {}
    for loader in flight.loaders:
        missing = list(missing_data(flight.cfg, loader))
        yield from ((FAIL, *error) for error in missing)
        if missing:
            continue
        present.append(loader)
        errors[loader] = attempt(loader, read_samples, flight, loader)[1]
        if not errors[loader]:
            yield OK, (f'{loader}: {flight.sizes[loader]} samples, '
                       f'{1000 * flight.reading[loader]:.0f} ms to read and '
                       'augment one')
    found: list[tuple] = []
    if present and flight.cfg.get('default_scope') in TASKS:
        found = list(check_files(flight, present))
    for loader, error in errors.items():
        # The same error with the name of its file is more helpful.
        if error and not any(state == FAIL and text.startswith(loader)
                             for state, text, *_ in found):
            yield FAIL, error
    yield from found


def load_loosely(module: nn.Module, load: Callable) -> tuple[str, str]:
    """Load weights like MMEngine, which continues even if few of them match.

    Returns state and text of a finding, read from MMEngine's messages.
    """
    logger, log = MMLogger.get_current_instance(), BufferingHandler(10**6)
    logger.addHandler(log)
    try:
        load(module)
    finally:
        logger.removeHandler(log)
    text = '\n'.join(record.getMessage() for record in log.buffer)
    missing, ignored, misfits = (
        [name for line in re.findall(pattern, text)
         for name in line.split(', ')]
        for pattern in ('missing keys in source state_dict: (.*)',
                        'unexpected key in source state_dict: (.*)',
                        r'size mismatch for (\S+):'))  # yapf: disable
    own = [k for k in module.state_dict() if 'num_batches_tracked' not in k]
    anew = missing + misfits
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
    for module in flight.model.modules():
        for init in items_of(getattr(module, 'init_cfg', None)):
            if bare_name(init.get('type', '')) != 'Pretrained':
                continue
            arguments = {k: v for k, v in init.items() if k != 'type'}
            yield init['checkpoint'], (
                partial(load_backbone, module, arguments)
                if isinstance(module, HRFormer) else
                partial(load_loosely, module, PretrainedInit(**arguments)))
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


@findings_about('weights', needs='model')
def check_weights(flight: Flight) -> Iterator[tuple]:
    files = list(files_to_load(flight))
    for path, load in files:
        with protected_loading():
            result, error = attempt(path, load)
        if error:
            yield FAIL, error
            continue
        state, found = result
        yield (state, f'{path}: {found}',
               'a head is initialized anew if classes or keypoints differ; if '
               'you did not expect this, the weights are of another model' *
               (state != OK))
    if not files:
        yield OK, 'none: training starts from scratch'
