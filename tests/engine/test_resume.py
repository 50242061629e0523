# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A training stopped anywhere ends like an uninterrupted one."""
import os
import signal

import pytest
import torch
from toy import CallAt, toy_run


class Killed(BaseException):
    """Passes everything, as a kill would."""


def die(runner):
    raise Killed


def send_sigterm(runner):
    os.kill(os.getpid(), signal.SIGTERM)


CallAt.functions.update(die=die, sigterm=send_sigterm)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def interrupt(name, at, where='train'):
    return dict(custom_hooks=[
        dict(type='CallAt', name=name, at=at, where=where)])


@pytest.fixture(scope='module', params=[True, False],
                ids=['epochs', 'iterations'])
def whole(request, tmp_path_factory):
    """How training counts, and the weights that it ends with."""
    torch.use_deterministic_algorithms(False)
    yield request.param, toy_run(
        tmp_path_factory.mktemp('whole'), by_epoch=request.param)
    torch.use_deterministic_algorithms(False)


EPOCHS_ARE_SLOW = pytest.mark.parametrize('whole', [
    pytest.param(True, marks=pytest.mark.slow), False], indirect=True,
    ids=['epochs', 'iterations'])  # yapf: disable


@pytest.mark.parametrize('at, where', [(3, 'train'), (9, 'train'),
                                       (18, 'val')])
def test_a_killed_training_ends_with_the_same_bits(whole, at, where, tmp_path):
    by_epoch, expected = whole
    with pytest.raises(Killed):
        toy_run(tmp_path, by_epoch=by_epoch, **interrupt('die', at, where))
    weights = toy_run(tmp_path, by_epoch=by_epoch, resume=True)
    assert_same(weights, expected)


@pytest.mark.slow
def test_random_numbers_do_not_depend_on_workers(whole, tmp_path):
    (by_epoch, expected), workers = whole, 2
    with pytest.raises(Killed):
        toy_run(tmp_path, by_epoch=by_epoch, workers=workers,
                **interrupt('die', 8))  # yapf: disable
    assert_same(
        toy_run(tmp_path, by_epoch=by_epoch, workers=workers, resume=True),
        expected)


@EPOCHS_ARE_SLOW
@pytest.mark.parametrize('at, where, saved', [(8, 'train', 9),
                                              (12, 'val', 12)])
def test_sigterm_saves_at_the_current_iteration(whole, at, where, saved,
                                                tmp_path):
    by_epoch, expected = whole
    with pytest.raises(SystemExit) as stop:
        toy_run(tmp_path, by_epoch=by_epoch, **interrupt('sigterm', at, where))
    assert stop.value.code == 143
    last = (tmp_path / 'last_checkpoint').read_text()
    assert torch.load(last)['meta']['iter'] == saved
    assert last.endswith('interrupted.pth') == (where == 'train')
    assert_same(
        toy_run(tmp_path, by_epoch=by_epoch, resume=True), expected)
    assert (tmp_path / 'last_checkpoint').read_text() != last
