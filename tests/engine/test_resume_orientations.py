# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Batches of images of one orientation, as MMDetection makes them, resume."""
import os
import signal

import pytest
import torch
from toy import CallAt, toy_run

from hrformer_mm.engine.hooks.resuming import SeededFetch

pytest.importorskip('mmdet')
ORIENTED = {'train_dataloader.batch_sampler': dict(
    type='mmdet.AspectRatioBatchSampler')}
EPOCH = 4  # iterations, of 3 samples


@pytest.fixture
def drawn(monkeypatch):
    """Index, epoch and number of the samples of each batch."""
    found, fetch = [], SeededFetch.__call__

    def spy(self, draws):
        found.append([(int(d), d.epoch, d.number) for d in draws])
        return fetch(self, draws)

    monkeypatch.setattr(SeededFetch, '__call__', spy)
    return found


CallAt.functions['terminate'] = lambda runner: os.kill(
    os.getpid(), signal.SIGTERM)


def train(folder, stop_at=None, batch=3, **options):
    options = {'train_dataloader.batch_size': batch, 'resume': True,
               **ORIENTED, **options}
    if stop_at is None:
        return toy_run(folder, **options)
    with pytest.raises(SystemExit):
        toy_run(folder, custom_hooks=[
            dict(type='CallAt', name='terminate', at=stop_at)], **options)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def logs(folder):
    return ''.join(p.read_text() for p in folder.rglob('*.log'))


@pytest.mark.parametrize('workers', [
    0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stop_in_an_epoch_changes_neither_batches_nor_weights(
        workers, drawn, tmp_path):
    expected = train(tmp_path / 'whole', workers=workers)
    whole, drawn[:] = [*drawn], []
    for stop in (0, 2, EPOCH + 1):  # before the last iteration of the job
        train(tmp_path / 'stopped', stop, workers=workers)
    assert_same(train(tmp_path / 'stopped', workers=workers), expected)
    if not workers:
        assert drawn == whole
        assert len(whole) == 3 * EPOCH
        kinds = [{index % 3 == 0 for index, *_ in batch} for batch in whole]
        assert sum(len(kind) == 1 for kind in kinds) >= 2 * len(kinds) // 3


def test_with_another_batch_the_epoch_has_its_length_and_a_warning(
        drawn, tmp_path):
    train(tmp_path, 1)
    train(tmp_path, batch=2, **{'train_cfg.max_epochs': 1})
    assert [len(batch) for batch in drawn] == [3, 3, 2, 2, 2]
    assert 'some of this epoch may be used twice' in logs(tmp_path)


def test_endless_batches_of_orientations_resume_with_a_warning(tmp_path):
    train(tmp_path, 7, by_epoch=False)
    train(tmp_path, by_epoch=False)
    assert logs(tmp_path).count(
        'the position of this checkpoint in the data is unknown with '
        'train_dataloader.batch_sampler=AspectRatioBatchSampler '
        'and sampler=InfiniteSampler') == 1
