# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checks that run a few training steps, and estimate memory and time."""
import math
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import torch
from rich.filesize import decimal as size

from ...checkpoints.convert import first_few
from ...utils import costs
from ..hooks.lengths import Length, build, remarks
from ..hooks.saving import unknown_metrics
from .inputs import items_of
from .rehearsal import STEPS, Rehearsal
from .report import FAIL, OK, SKIP, WARN, Flight, findings_about

TIGHT = 0.8  # share of memory or disk above which a run may not fit
PATIENCE = 30  # maximum seconds of a step with the whole batch


def level_of(need: float, free: float) -> str:
    """Return the state of a finding about memory or disk."""
    return OK if need < TIGHT * free else WARN if need < free else FAIL


@findings_about('batch')
def check_batch(flight: Flight) -> Iterator[tuple]:
    """Compare the batch size with the one that the learning rate is for.

    Finds also trainings without a step, or with fewer updates than expected.
    """
    cfg, processes = flight.cfg, flight.processes
    repeats = cfg.optim_wrapper.get('accumulative_counts', 1)
    total = processes * flight.batch * repeats
    scale = cfg.get('auto_scale_lr') or {}
    base = scale.get('base_batch_size')
    lr = cfg.optim_wrapper.get('optimizer', {}).get('lr')
    more = f' x {repeats} steps' if repeats > 1 else ''
    found = f'{processes} x {flight.batch}{more} = {total}'
    if base and total != base and not scale.get('enable'):
        yield (WARN, f'{found}, but the learning rate {lr} is for batches of '
               f'{base}', 'scale it with --auto-scale-lr, or set the batch to '
               f'{base} with train_dataloader.batch_size and '
               'optim_wrapper.accumulative_counts')
    else:
        scaled = base and scale.get('enable')
        factor = f' x {total / base:.3g}' if scaled else ''
        yield OK, f'{found}, learning rate {lr}{factor}'
    sampler = cfg.train_dataloader.get('sampler') or {}
    endless = 'InfiniteSampler' in str(sampler.get('type'))
    if flight.samples and not endless and not costs.count_iterations(
            cfg, flight.samples, processes)[1]:
        yield (FAIL, f'{flight.samples} samples do not fill one batch of all '
               'processes and drop_last is on, so an epoch has no step',
               'reduce train_dataloader.batch_size')
    iterations = cfg.train_cfg.get('max_iters')
    if iterations and repeats > 1:
        yield (WARN, f'max_iters={iterations} iterations make '
               f'{-(-iterations // repeats)} updates of {total} samples',
               'multiply train_cfg.max_iters and val_interval by '
               f'{repeats} for {iterations} updates')


@findings_about('schedule', needs='samples')
def check_schedule(flight: Flight) -> Iterator[tuple]:
    """Compare the lengths of schedules with the length of the training."""
    cfg = flight.cfg
    configs = cfg.get('param_scheduler')
    is_plain = isinstance(configs, list) or 'type' in (configs or {})
    if not configs or not is_plain:  # or schedules of several optimizers
        return
    window = cfg.optim_wrapper.get('accumulative_counts', 1)
    steps, epoch = costs.count_iterations(cfg, flight.samples,
                                          flight.processes)
    epochs, epoch = cfg.train_cfg.get('max_epochs'), -(-epoch // window)
    length = Length(epochs, epochs * epoch if epochs else -(-steps // window),
                    epoch, window)
    lr = cfg.optim_wrapper.get('optimizer', {}).get('lr') or 0.
    found = list(remarks(build(configs, lr, length), length))
    yield from ((WARN, *remark) for remark in found)
    if not found:
        yield OK, f'fits {length.text}'


@findings_about('step', needs='is_ready')
def check_step(flight: Flight) -> Iterator[tuple]:
    """Run the first training steps with few samples."""
    run = flight.rehearsal = Rehearsal(flight.cfg, flight.folder).train()
    losses = ', '.join(f'{loss:.4g}' for loss in run.losses)
    if all(map(math.isfinite, run.losses)):
        yield OK, (f'{STEPS} of {run.samples} samples, {run.seconds:.3g} s '
                   f'each; losses {losses}')
    else:
        yield (FAIL, f'losses {losses}',
               'check for labels out of range, or a learning rate too large')


@findings_about('evaluation', needs='rehearsal')
def check_evaluation(flight: Flight) -> Iterator[tuple]:
    """Evaluate a batch, and check that the metric of ``save_best`` exists."""
    if flight.cfg.get('val_cfg') is None:
        return
    if 'val_dataloader' not in flight.sizes:
        yield SKIP, 'needs valid data'
        return
    metrics = flight.rehearsal.evaluate()
    flight.evaluating = metrics.pop('seconds')
    hook = flight.cfg.get('default_hooks', {}).get('checkpoint') or {}
    wrong = list(unknown_metrics(items_of(hook.get('save_best')), metrics))
    for problem, fix in wrong:
        yield FAIL, problem, fix
    if not wrong:
        yield OK, (f'{flight.evaluating:.3g} s per sample, {len(metrics)} '
                   f'metrics{first_few(sorted(metrics))}')


def free_memory() -> int:
    """Return the bytes available to this process, on the GPU if any."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return psutil.virtual_memory().available


def needed_memory(flight: Flight) -> int:
    """Estimate the bytes of a process, including DDP's gradient buffers."""
    copies = costs.gradient_bytes(flight.model) * (flight.processes > 1)
    return flight.rehearsal.memory(flight.batch) + copies


@findings_about('memory', needs='rehearsal')
def check_memory(flight: Flight) -> Iterator[tuple]:
    need, free = needed_memory(flight), free_memory()
    state = level_of(need, free)
    yield (state, f'about {size(need)} of {size(free)} available, '
           f'{size(flight.rehearsal.states)} of it for weights and optimizer',
           'reduce train_dataloader.batch_size with '
           'optim_wrapper.accumulative_counts, or set '
           'model.backbone.with_cp=True' * (state != OK))


def step_seconds(flight: Flight) -> float:
    """Return seconds of a step with the whole batch, measured or scaled.

    GPUs are more efficient with large batches, so the batch is measured if
    it fits; on CPUs, the time is proportional to the batch.
    """
    run = flight.rehearsal
    scaled = run.seconds * flight.batch / run.samples
    if torch.cuda.is_available() and scaled < PATIENCE and (
            needed_memory(flight) < TIGHT * free_memory()):
        return run.time(flight.batch)
    return scaled


@findings_about('time', needs='rehearsal')
def check_time(flight: Flight) -> Iterator[tuple]:
    """Estimate how long training takes on this machine."""
    workers = flight.cfg.train_dataloader.get('num_workers', 0)
    step = step_seconds(flight)
    reading = (flight.reading['train_dataloader'] * flight.batch /
               max(workers, 1))
    steps, _ = costs.count_iterations(flight.cfg, flight.samples,
                                      flight.processes)
    evaluations = costs.count_evaluations(flight.cfg)
    samples = -(-flight.sizes.get('val_dataloader', 0) // flight.processes)
    evaluation = evaluations * samples * flight.evaluating
    total, part = (timedelta(seconds=round(seconds)) for seconds in (
        steps * max(step, reading) + evaluation, evaluation))
    yield OK, (f'about {total} h: {steps} steps of {step:.3g} s, '
               f'{evaluations} evaluations in {part} h')
    if reading > step:
        yield (WARN, f'reading a batch takes {reading:.3g} s with {workers} '
               'worker(s), longer than the step',
               'increase train_dataloader.num_workers, up to the number of '
               'cores for each process')


@findings_about('disk')
def check_disk(flight: Flight) -> Iterator[tuple]:
    """Check that there is disk space for the checkpoints."""
    folder = Path(flight.cfg.work_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield (FAIL, f'{folder} is not writable',
               'choose another folder with --work-dir')
    elif flight.model is None:
        yield SKIP, 'needs a valid model'
    else:
        one = costs.checkpoint_bytes(flight.model, flight.cfg)
        count = costs.count_checkpoints(flight.cfg)
        need, free = count * one, shutil.disk_usage(folder).free
        state = level_of(need, free)
        yield (state, f'up to {count} checkpoints of {size(one)} take '
               f'{size(need)} of {size(free)} available in {folder}',
               'free space, choose another folder with --work-dir, or lower '
               'default_hooks.checkpoint.max_keep_ckpts' * (state != OK))
