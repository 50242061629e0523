# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Run by the processes of test_distributed.py, started by torchrun."""
import os
import signal
import sys
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank
from toy import CallAt, toy_config

from hrformer_mm.engine import train as training

SAME = {'model.drop': 0., 'model.double': True, 'sync_bn': 'torch'}


def run(folder: Path, **options):
    """Train with batches that two processes make 4 of, recording steps."""
    options.setdefault('custom_hooks', [
        dict(type='RecordSteps', path=str(folder / 'steps.pth'))])
    cfg = toy_config(folder, launcher='pytorch', **dict(SAME, **options))
    training.fit_machine(cfg)
    runner = training.build_runner(cfg)
    runner.train()
    return runner


def signal_second_process(runner):
    if get_rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def stop_and_resume(folder: Path, at: int, where: str = 'train', hooks=(),
                    **options):
    """SIGTERM for one process before a batch, then --resume."""
    CallAt.functions['signal'] = signal_second_process
    try:
        run(folder, custom_hooks=[*hooks, dict(
            type='CallAt', name='signal', at=at, where=where)], **options)
    except SystemExit as stop:
        (folder / f'code_{get_rank()}').write_text(str(stop.code))
    barrier()
    run(folder, resume=True, custom_hooks=[*hooks], **options)


def stop_in_an_evaluation(folder: Path):
    """Processes have 3 and 2 batches; no checkpoint is due before it."""
    options = {
        'hooks': [dict(type='EMAHook', momentum=.3)],
        'val_dataloader.sampler': dict(type='DefaultSampler', shuffle=False,
                                       round_up=False),
        'val_dataloader.batch_size': 1,
        'val_dataloader.dataset.indices': 5,
        'default_hooks.checkpoint.interval': 2}
    stop_and_resume(folder / 'stopped_val', 3, 'val', **options)
    run(folder / 'not_stopped_val', custom_hooks=options.pop('hooks'),
        **options)


def plain(folder: Path):
    run(folder / 'ddp')
    stop_and_resume(folder / 'stopped', 4)
    stop_in_an_evaluation(folder)


def switches(folder: Path):
    longer = {'train_cfg.max_epochs': 4}
    run(folder / 'longer', **longer)
    run(folder / 'compile', compile=dict(backend='aot_eager'))
    for round_up in (True, False):
        evaluate_odd(folder / f'odd_{round_up}', round_up)


def evaluate_odd(folder: Path, round_up: bool):
    """Evaluate five samples on two processes."""
    runner = run(folder, **{
        'val_dataloader.sampler': dict(
            type='DefaultSampler', shuffle=False, round_up=round_up),
        'val_dataloader.dataset.indices': 5, 'train_cfg.max_epochs': 1})
    if get_rank() == 0:
        hub = runner.message_hub
        torch.save({k: hub.get_scalar(f'val/{k}').current()
                    for k in ('value', 'count')}, folder / 'metrics.pth')


if __name__ == '__main__':
    globals()[sys.argv[2]](Path(sys.argv[1]))
