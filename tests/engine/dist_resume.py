# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Trainings that are resumed on another number of processes.

    dist_resume.py FOLDER start      # train on these processes until SIGTERM
    dist_resume.py FOLDER resume     # resume those of one process
"""
import itertools
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from toy import BATCH, SAMPLES, CallAt, toy_config

from hrformer_mm.engine import train as training
from hrformer_mm.engine.hooks.resuming import SeededFetch

EPOCHS = 3
SCHEDULES = {
    True: dict(type='hrformer_mm.WarmupCosineLR', warmup=1, by_epoch=True,
               convert_to_iter_based=True),
    False: dict(type='hrformer_mm.WarmupPolyLR', warmup=2, by_epoch=False)}
CASES = list(itertools.product([True, False], ['same batch', 'same total']))


@HOOKS.register_module()
class Record(Hook):
    """Write rates by iteration and the draws of this process to a file."""

    def __init__(self, path: str):
        rank, world = get_dist_info()
        self.path = Path(f'{path}_{world}_{rank}.json')
        self.rates, self.draws = {}, []

    def before_run(self, runner):
        DRAWS.clear()

    def before_train_iter(self, runner, *args, **kwargs):
        self.rates[runner.iter] = runner.optim_wrapper.get_lr()['lr'][0]

    def after_train_iter(self, runner, *args, **kwargs):
        self.path.write_text(json.dumps([self.rates, DRAWS]))


DRAWS = []  # epoch and number of each sample that this process fetched
fetch = SeededFetch.fetch


def record_fetch(fetcher, index, epoch, number):
    DRAWS.append((epoch, number))
    return fetch(fetcher, index, epoch, number)


SeededFetch.fetch = record_fetch


def sigterm(runner):
    os.kill(os.getpid(), signal.SIGTERM)


CallAt.functions['stop'] = sigterm


def run(folder: Path, by_epoch: bool, batch: int, samples: int = 0,
        **options):
    """Train, and stop after a number of samples of all processes."""
    world = int(os.environ.get('WORLD_SIZE', 1))
    total = batch * world
    hooks = [dict(type='Record', path=str(folder / 'record'))]
    if samples:
        hooks.append(dict(type='CallAt', name='stop', at=samples // total - 1))
    length = {'train_cfg.max_epochs': EPOCHS} if by_epoch else {
        'train_cfg.max_iters': EPOCHS * SAMPLES // total}
    cfg = toy_config(folder, by_epoch=by_epoch, custom_hooks=hooks, **{
        'model.drop': 0., 'model.double': True, 'sync_bn': 'torch',
        'train_dataloader.batch_size': batch,
        'param_scheduler': [SCHEDULES[by_epoch]], 'val_cfg': None,
        'val_dataloader': None, 'val_evaluator': None,
        'default_hooks.checkpoint.save_best': None,
        'default_hooks.checkpoint.interval': 100,
        'launcher': 'pytorch' if 'RANK' in os.environ else 'none'},
        **length, **options)
    with suppress(SystemExit):
        training.train(cfg)


def name(direction: str, case) -> str:
    return f'{direction}_{case[0]}_{case[1]}'.replace(' ', '_')


def main(folder: Path, stage: str):
    world = int(os.environ['WORLD_SIZE'])
    for case in CASES:
        if stage == 'start':  # one batch into the second epoch
            run(folder / name('fewer', case), case[0], BATCH,
                SAMPLES + BATCH * world)
        else:
            run(folder / name('more', case), case[0], BATCH, resume=True)


if __name__ == '__main__':
    main(Path(sys.argv[1]), sys.argv[2])
