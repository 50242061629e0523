# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Each sample is used once, however often a training stops, with any batch.

The position in the data of two processes is that of one with twice the batch.
"""
import os
import signal

import pytest
from toy import CallAt, QuietRunner, toy_config

from hrformer_mm.engine.hooks.resuming import SeededFetch


@pytest.fixture
def drawn(monkeypatch):
    """Epoch and number of each sample that a training fetches."""
    found, fetch = [], SeededFetch.fetch

    def spy(self, index, epoch, number):
        found.append((epoch, number))
        return fetch(self, index, epoch, number)

    monkeypatch.setattr(SeededFetch, 'fetch', spy)
    return found


def sigterm(runner):
    os.kill(os.getpid(), signal.SIGTERM)


CallAt.functions['stop'] = sigterm


def train(folder, batch, stop_at=None, **options):
    hooks = [] if stop_at is None else [
        dict(type='CallAt', name='stop', at=stop_at)]
    cfg = toy_config(folder, resume=True, custom_hooks=hooks, **{
        'train_dataloader.batch_size': batch, 'val_cfg': None,
        'val_dataloader': None, 'val_evaluator': None,
        'default_hooks.checkpoint.save_best': None}, **options)
    QuietRunner.from_cfg(cfg).train()


@pytest.mark.parametrize('batches', [
    # Batch and iterations of each run, 12 samples an epoch.
    [(2, 3), (4, 1), (2, 1)],
    pytest.param([(4, 1), (2, 2), (4, 1)], marks=pytest.mark.slow),
    pytest.param([(2, 1), (4, 1), (4, 1), (2, 1)], marks=pytest.mark.slow)])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_no_sample_is_repeated_or_left_out(batches, by_epoch, drawn, tmp_path):
    seen = 0
    for batch, iterations in batches:
        ahead = -(-(12 - seen) // batch)
        begin = -(-12 // batch) - ahead if by_epoch else seen // batch
        with pytest.raises(SystemExit):
            train(tmp_path, batch, by_epoch=by_epoch,
                  stop_at=begin + iterations - 1)  # yapf: disable
        seen += batch * iterations
        assert sorted(drawn) == [(0, i) for i in range(seen)], batch
    length = {'train_cfg.max_epochs': 1} if by_epoch else {
        'train_cfg.max_iters': 6}
    train(tmp_path, 2, by_epoch=by_epoch, **length)
    assert sorted(drawn) == [(0, i) for i in range(12)]
