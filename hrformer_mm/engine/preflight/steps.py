# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checks that run a few training steps, and estimate memory and time."""
import math
import os
import shutil
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import psutil
import torch

from ...checkpoints.convert import first_few
from ...utils import costs
from ..hooks.lengths import Length, build, remarks
from .inputs import items_of
from .rehearsal import STEPS, Rehearsal
from .report import (
    FAIL,
    OK,
    SKIP,
    WARN,
    Finding,
    Flight,
    attempt,
    duration,
    size,
)

TIGHT = 0.8  # share of memory or disk above which a run may not fit
PATIENCE = 30  # maximum seconds of a step with the whole batch
TRACE = 'set HRFORMER_MM_TRACEBACK=1 to print the traceback'


def check_batch(flight: Flight) -> Iterator[Finding]:
    """Compare the batch size with the one that the learning rate is for."""
    cfg, processes = flight.cfg, flight.processes
    repeats = cfg.optim_wrapper.get('accumulative_counts', 1)
    total = processes * flight.batch * repeats
    scale = cfg.get('auto_scale_lr') or {}
    base = scale.get('base_batch_size')
    lr = cfg.optim_wrapper.get('optimizer', {}).get('lr')
    found = f'{processes} x {flight.batch}' + (
        f' x {repeats} steps' if repeats > 1 else '') + f' = {total}'
    if base and scale.get('enable'):
        factor = total / base
        yield Finding('batch', OK, f'{found}, learning rate {lr} x '
                      f'{factor:.3g}')
    elif base and total != base:
        yield Finding(
            'batch', WARN, f'{found}, but the learning rate {lr} is for '
            f'batches of {base}', 'scale it with --auto-scale-lr, or set '
            f'the batch to {base} with train_dataloader.batch_size and '
            'optim_wrapper.accumulative_counts')
    else:
        yield Finding('batch', OK, f'{found}, learning rate {lr}')
    yield from check_lengths(flight, total, repeats)


def check_lengths(flight: Flight, total: int,
                  repeats: int) -> Iterator[Finding]:
    """Find trainings without a step, or with fewer updates than expected.

    Args:
        flight: The run.
        total: Number of samples in an update.
        repeats: Number of iterations in an update.
    """
    cfg = flight.cfg
    samples = flight.sizes.get('train_dataloader')
    sampler = cfg.train_dataloader.get('sampler') or {}
    endless = 'InfiniteSampler' in str(sampler.get('type'))
    if samples and not endless and not costs.count_iterations(
            cfg, samples, flight.processes)[1]:
        yield Finding(
            'batch', FAIL, f'{samples} samples do not fill one batch of all '
            'processes and drop_last is on, so an epoch has no step',
            'reduce train_dataloader.batch_size')
    iterations = cfg.train_cfg.get('max_iters')
    if iterations and repeats > 1:
        yield Finding(
            'batch', WARN, f'max_iters={iterations} iterations make '
            f'{-(-iterations // repeats)} updates of {total} samples',
            'multiply train_cfg.max_iters and val_interval by '
            f'{repeats} for {iterations} updates')


def check_schedule(flight: Flight) -> Iterator[Finding]:
    """Compare the lengths of schedules with the length of the training."""
    cfg, samples = flight.cfg, flight.sizes.get('train_dataloader')
    configs = cfg.get('param_scheduler')
    is_plain = isinstance(configs, list) or 'type' in (configs or {})
    if not configs or not is_plain:  # or schedules of several optimizers
        return
    if not samples:
        yield Finding('schedule', SKIP, 'needs a valid config and data')
        return
    window = cfg.optim_wrapper.get('accumulative_counts', 1)
    steps, epoch = costs.count_iterations(cfg, samples, flight.processes)
    epochs, epoch = cfg.train_cfg.get('max_epochs'), -(-epoch // window)
    length = Length(epochs, epochs * epoch if epochs else -(-steps // window),
                    epoch, window)
    lr = cfg.optim_wrapper.get('optimizer', {}).get('lr') or 0.
    schedulers, error = attempt('param_scheduler', build, configs, lr, length)
    if error:
        yield Finding('schedule', FAIL, error, TRACE)
        return
    found = list(remarks(schedulers, length))
    for fault, advice in found:
        yield Finding('schedule', WARN, fault, advice)
    if not found:
        yield Finding('schedule', OK, f'fits {length.text}')


def check_step(flight: Flight) -> Iterator[Finding]:
    """Run the first training steps with few samples."""
    if not flight.is_built or 'train_dataloader' not in flight.sizes:
        yield Finding('step', SKIP, 'needs a valid config and data')
        return
    rehearsal = Rehearsal(flight.cfg, flight.folder)
    measured, error = attempt('the first steps', rehearsal.train)
    if error:
        yield Finding('step', FAIL, error, TRACE)
        return
    flight.rehearsal = rehearsal
    losses = ', '.join(f'{loss:.4g}' for loss in measured.losses)
    if all(map(math.isfinite, measured.losses)):
        yield Finding(
            'step', OK, f'{STEPS} of {measured.samples} samples, '
            f'{measured.seconds:.3g} s each; losses {losses}')
    else:
        yield Finding(
            'step', FAIL, f'losses {losses}',
            'check for labels out of range, or a learning rate too large')


def check_evaluation(flight: Flight) -> Iterator[Finding]:
    """Evaluate a batch, and check that the metric of ``save_best`` exists."""
    if flight.cfg.get('val_cfg') is None:
        return
    if flight.rehearsal is None or 'val_dataloader' not in flight.sizes:
        yield Finding('evaluation', SKIP, 'needs the training steps and data')
        return
    metrics, error = attempt('an evaluation', flight.rehearsal.evaluate)
    if error:
        yield Finding('evaluation', FAIL, error, TRACE)
        return
    flight.evaluating = metrics.pop('seconds')
    hook = flight.cfg.get('default_hooks', {}).get('checkpoint') or {}
    wrong = [name for name in items_of(hook.get('save_best'))
             if name != 'auto' and name not in metrics]
    for name in wrong:
        same = {key.lower(): key for key in metrics}
        near = get_close_matches(name.lower(), same, 1, 0.)
        yield Finding(
            'evaluation', FAIL, 'default_hooks.checkpoint.save_best is '
            f'{name!r}, which is not one of the metrics {sorted(metrics)}',
            'default_hooks.checkpoint.save_best=' +
            (same[near[0]] if near else 'auto'))
    if not wrong:
        yield Finding('evaluation', OK,
                      f'{flight.evaluating:.3g} s per sample, '
                      f'{len(metrics)} metrics{first_few(sorted(metrics))}')


def free_memory() -> int:
    """Return the bytes available to this process, on the GPU if any."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return psutil.virtual_memory().available


def needed_memory(flight: Flight) -> int:
    """Estimate the bytes of a process, including DDP's gradient buffers."""
    assert flight.rehearsal is not None and flight.model is not None
    copies = flight.processes > 1
    return flight.rehearsal.measured.memory(flight.batch) + (
        copies * costs.gradient_bytes(flight.model))


def check_memory(flight: Flight) -> Iterator[Finding]:
    if flight.rehearsal is None:
        yield Finding('memory', SKIP, 'needs the training steps')
        return
    measured = flight.rehearsal.measured
    need, free = needed_memory(flight), free_memory()
    found = (f'about {size(need)} of {size(free)} available, '
             f'{size(measured.states)} of it for weights and optimizer')
    state = OK if need < TIGHT * free else WARN if need < free else FAIL
    yield Finding(
        'memory', state, found, '' if state == OK else
        'reduce train_dataloader.batch_size with '
        'optim_wrapper.accumulative_counts, or set '
        'model.backbone.with_cp=True')


def step_seconds(flight: Flight) -> float:
    """Return seconds of a step with the whole batch, measured or scaled.

    GPUs are more efficient with large batches, so the batch is measured if
    it fits; on CPUs, the time is proportional to the batch.
    """
    assert flight.rehearsal is not None
    measured = flight.rehearsal.measured
    scaled = measured.seconds * flight.batch / measured.samples
    if torch.cuda.is_available() and scaled < PATIENCE and (
            needed_memory(flight) < TIGHT * free_memory()):
        return flight.rehearsal.time(flight.batch)
    return scaled


def check_time(flight: Flight) -> Iterator[Finding]:
    """Estimate how long training takes on this machine."""
    if flight.rehearsal is None:
        yield Finding('time', SKIP, 'needs the training steps')
        return
    cfg = flight.cfg
    workers = cfg.train_dataloader.get('num_workers', 0)
    step, error = attempt('a step with the whole batch', step_seconds, flight)
    if error:
        yield Finding('time', FAIL, error, TRACE)
        return
    reading = (flight.reading['train_dataloader'] * flight.batch /
               max(workers, 1))
    steps, _ = costs.count_iterations(cfg, flight.sizes['train_dataloader'],
                                      flight.processes)
    evaluations = costs.count_evaluations(cfg)
    samples = -(-flight.sizes.get('val_dataloader', 0) // flight.processes)
    training = steps * max(step, reading)
    evaluation = evaluations * samples * flight.evaluating
    yield Finding(
        'time', OK, f'about {duration(training + evaluation)}: {steps} steps '
        f'of {step:.3g} s, {evaluations} evaluations in '
        f'{duration(evaluation)}')
    if reading > step:
        yield Finding(
            'time', WARN, f'reading a batch takes {reading:.3g} s with '
            f'{workers} worker(s), longer than the step',
            'increase train_dataloader.num_workers, up to the number of '
            'cores for each process')


def check_disk(flight: Flight) -> Iterator[Finding]:
    """Check that there is disk space for the checkpoints."""
    folder = Path(flight.cfg.work_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Finding('disk', FAIL, f'{folder} is not writable',
                      'choose another folder with --work-dir')
        return
    if flight.model is None:
        yield Finding('disk', SKIP, 'needs the model')
        return
    one = costs.checkpoint_bytes(flight.model, flight.cfg)
    count = costs.count_checkpoints(flight.cfg)
    need, free = count * one, shutil.disk_usage(folder).free
    state = OK if need < TIGHT * free else WARN if need < free else FAIL
    yield Finding(
        'disk', state, f'up to {count} checkpoints of {size(one)} take '
        f'{size(need)} of {size(free)} available in {folder}',
        '' if state == OK else 'free space, choose another folder with '
        '--work-dir, or lower default_hooks.checkpoint.max_keep_ckpts')
