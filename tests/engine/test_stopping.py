# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""SIGTERM during evaluations, and stops inside a window of accumulation."""
import os
import signal
import time

import psutil
import pytest
import torch
from mmengine.registry import HOOKS
from toy import CallAt, QuietRunner, toy_config

from hrformer_mm.engine.hooks import accumulation, saving, signals

slow = pytest.mark.slow
EMA = dict(type='EMAHook', momentum=.3)
WINDOW = 'optim_wrapper.accumulative_counts'


class Killed(BaseException):
    """Passes everything, as a kill would."""


def kill(runner):
    raise Killed


def sigterm(runner):
    os.kill(os.getpid(), signal.SIGTERM)


def sigterm_many_times(runner):
    for _ in range(3):
        sigterm(runner)


CallAt.functions.update(kill=kill, sigterm=sigterm, many=sigterm_many_times)


def train(folder, hooks=(), **options):
    cfg = toy_config(folder, custom_hooks=list(hooks), **options)
    runner = QuietRunner.from_cfg(cfg)
    runner.train()
    return runner


def call(name, at, where='train'):
    return dict(type='CallAt', name=name, at=at, where=where)


def last(folder):
    return torch.load((folder / 'last_checkpoint').read_text())


def assert_same(a, b):
    """Compare weights, averages and the optimizer, bit by bit."""
    for key in ('state_dict', 'ema_state_dict'):
        assert (key in a) == (key in b)
        for name in a.get(key, {}):
            assert torch.equal(a[key][name], b[key][name]), (key, name)
    for i, state in a['optimizer']['state'].items():
        for name, value in state.items():
            assert torch.equal(value, b['optimizer']['state'][i][name]), name
    assert a['meta']['iter'] == b['meta']['iter']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Return trainings that are not stopped, made once for all tests."""
    made = {}

    def train_whole(hooks, **options):
        key = repr((hooks, sorted(options.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp('whole')
            train(folder, hooks, **options)
            made[key] = last(folder)
        return made[key]

    return train_whole


@pytest.fixture
def assert_stop_changes_nothing(whole, tmp_path):
    """Train, stop by a hook and resume; return what the stop saved."""

    def check(hook, hooks=(), code=143, **options):
        with pytest.raises((SystemExit, Killed)) as stop:
            train(tmp_path, [*hooks, hook], **options)
        if code:
            assert stop.value.code == code
        saved = last(tmp_path)
        train(tmp_path, hooks, resume=True, **options)
        assert_same(last(tmp_path), whole(hooks, **options))
        return saved

    return check


# During an evaluation

# With a hook that saves at another time, so that there is something to save.
RARELY = {'default_hooks.checkpoint.interval': 2}


@pytest.mark.parametrize('at, kwargs', [
    (6, {}), pytest.param(6, dict(update_buffers=True), marks=slow),
    pytest.param(6, dict(begin_iter=9), marks=slow),
    pytest.param(18, {}, marks=slow)],
    ids=['averages', 'buffers', 'begins later', 'last'])
def test_sigterm_in_an_evaluation_saves_the_weights_of_training(
        at, kwargs, assert_stop_changes_nothing, tmp_path):
    hooks = [dict(EMA, **kwargs)]
    saved = assert_stop_changes_nothing(
        call('sigterm', at, 'val'), hooks, **RARELY)
    assert saved['meta']['iter'] == at
    if at == 6:
        assert (tmp_path / 'interrupted.pth').is_file()


@slow
@pytest.mark.parametrize('batch', [1, 8])
def test_an_evaluation_of_averages_and_weights_can_be_stopped(
        batch, assert_stop_changes_nothing):
    """MMPretrain's hook evaluates the one and then the other."""
    pytest.importorskip('mmpretrain')
    import mmpretrain.engine  # noqa: F401
    hooks = [dict(type='mmpretrain.EMAHook', momentum=.3,
                  evaluate_on_ema=True, evaluate_on_origin=True)]
    seen = []

    def count(runner):
        seen.append(1)
        if len(seen) == batch:  # of 12, half of each evaluation
            sigterm(runner)

    CallAt.functions['count'] = count
    saved = assert_stop_changes_nothing(
        call('count', 6, 'val'), hooks, **RARELY)
    assert saved['meta']['iter'] == 6 and len(seen) == batch


def test_weights_changed_by_an_unknown_hook_are_not_saved(tmp_path):

    def spoil(runner):
        if not CallAt.functions.pop('spoilt', None):
            runner.model.layers[0].weight.data.add_(1.)
            sigterm(runner)

    CallAt.functions['spoil'] = spoil
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, [call('spoil', 12, 'val')],
              **{'default_hooks.checkpoint.interval': 3})
    assert stop.value.code == 143
    assert not (tmp_path / 'interrupted.pth').exists()
    (log, ) = tmp_path.glob('*/*.log')
    assert 'a hook changed the weights' in log.read_text()


# More than one signal


def sigterm_for_workers_too(runner):
    for worker in psutil.Process().children(recursive=True):
        worker.send_signal(signal.SIGTERM)
    time.sleep(.3)  # long enough for one to die
    sigterm(runner)


@pytest.mark.slow
@pytest.mark.parametrize('at, where', [(3, 'train'), (12, 'val')])
def test_workers_survive_a_signal_to_all_processes(
        at, where, assert_stop_changes_nothing):
    """Those of evaluations as well, which stay from the first one on."""
    CallAt.functions['everywhere'] = sigterm_for_workers_too
    saved = assert_stop_changes_nothing(
        call('everywhere', at, where), workers=1, **{
            'val_dataloader.num_workers': 1,
            'val_dataloader.persistent_workers': True,
            'default_hooks.checkpoint.interval': 3})
    assert saved['meta']['iter'] == at + (where == 'train')


@pytest.mark.slow
def test_signals_in_quick_succession_count_as_one(tmp_path):
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, [call('many', 3)])
    assert stop.value.code == 143
    assert last(tmp_path)['meta']['iter'] == 4


def test_a_later_signal_ends_the_process(monkeypatch):
    request, got = signals.StopRequest(), []
    former = signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    try:
        monkeypatch.setattr(signals, 'REPEATS', 0.)
        request.listen()
        sigterm(None)
        assert request and not got
        sigterm(None)
        assert got
    finally:
        signal.signal(signal.SIGTERM, former)


# Gradient accumulation. An epoch has 6 batches: windows of 4 leave 2.


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('at', [
    7, *(pytest.param(at, marks=slow) for at in (3, 4, 5, 6, 8))])
def test_sigterm_stops_at_the_end_of_a_window(by_epoch, at,
                                              assert_stop_changes_nothing):
    saved = assert_stop_changes_nothing(
        call('sigterm', at), [EMA], by_epoch=by_epoch, **{WINDOW: 4})
    ends = [4, 6, 10, 12] if by_epoch else [4, 8, 12]
    assert saved['meta']['iter'] == next(e for e in ends if e > at)


@pytest.mark.parametrize('by_epoch, at, saved', [
    (True, 7, 6), (False, 11, 8), pytest.param(True, 14, 12, marks=slow)])
def test_a_kill_inside_a_window_loses_no_gradient(
        by_epoch, at, saved, assert_stop_changes_nothing):
    found = assert_stop_changes_nothing(
        call('kill', at), [EMA], code=None, by_epoch=by_epoch, **{WINDOW: 4})
    assert found['meta']['iter'] == saved


def test_a_checkpoint_that_is_due_inside_a_window_is_not_saved_there(
        tmp_path):
    with pytest.raises(Killed):  # due after iteration 6
        train(tmp_path, [call('kill', 7)], by_epoch=False, **{WINDOW: 4})
    assert not list(tmp_path.glob('iter_*'))


def test_an_evaluation_inside_a_window_ends_before_the_stop(
        assert_stop_changes_nothing):
    saved = assert_stop_changes_nothing(
        call('sigterm', 6, 'val'), [EMA], by_epoch=False, **{WINDOW: 4})
    assert saved['meta']['iter'] == 8


@HOOKS.register_module()
class RecordRates(accumulation.UpdateSchedulerHook):
    """Note the learning rate of each update."""

    def before_train(self, runner):
        runner.rates = []

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.optim_wrapper.should_update():
            runner.rates.append(runner.optim_wrapper.get_lr()['lr'][0])
        super().after_train_iter(runner, *args, **kwargs)


SCHEDULES = dict(
    iterations=dict(type='LinearLR', by_epoch=False, end=7),
    converted=dict(type='CosineAnnealingLR', convert_to_iter_based=True),
    ours=dict(type='hrformer_mm.WarmupCosineLR', warmup=1,
              convert_to_iter_based=True),
    poly=dict(type='hrformer_mm.WarmupPolyLR', warmup=2, by_epoch=False),
    epochs=dict(type='MultiStepLR', milestones=[1, 2], gamma=.1))


def rates(folder, batch, window, names, by_epoch=True, iters=18):
    cfg = toy_config(folder, by_epoch=by_epoch, **{
        'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None,
        'default_hooks.checkpoint.save_best': None,
        'train_dataloader.batch_size': batch, WINDOW: window,
        'param_scheduler': [SCHEDULES[n] for n in names]})
    if not by_epoch:
        cfg.train_cfg.max_iters = iters
    cfg.default_hooks.param_scheduler.type = 'mmengine.RecordRates'
    runner = QuietRunner.from_cfg(cfg)
    runner.train()
    return runner.rates


@pytest.mark.parametrize('names', [
    ('iterations', 'epochs'), pytest.param(('converted', ), marks=slow),
    pytest.param(('ours', ), marks=slow),
    pytest.param(('poly', ), marks=slow)], ids=lambda n: n[0])
@pytest.mark.parametrize('window', [pytest.param(2, marks=slow), 4])
def test_schedules_count_updates_as_with_larger_batches(names, window,
                                                        tmp_path):
    """The last batch of an epoch may be smaller, with either."""
    accumulated = rates(tmp_path / 'a', 2, window, names)
    assert accumulated == rates(tmp_path / 'b', 2 * window, 1, names)
    assert len(accumulated) == 3 * -(-6 // window)


@pytest.mark.parametrize('names', [
    pytest.param(('iterations', ), marks=slow), ('poly', )],
    ids=lambda n: n[0])
def test_schedules_of_iterations_count_updates(names, tmp_path):
    accumulated = rates(tmp_path / 'a', 2, 4, names, False, 32)
    assert accumulated == rates(tmp_path / 'b', 8, 1, names, False, 8)


def test_an_epoch_ends_with_an_update_of_the_remaining_batches(tmp_path):
    """The last window averages the batches it has."""
    runner = train(tmp_path, **{WINDOW: 4})
    wrapper = runner.optim_wrapper
    assert wrapper._max_counts == 6 and wrapper._remainder_counts == 2
    assert not accumulation.window_is_open(runner)


def test_unknown_weight_swaps_are_not_undone():
    model = torch.nn.Linear(2, 2)
    expected = saving.fingerprint(model)

    class Swaps:

        def __init__(self, by):
            self.by = by

        def _swap_ema_parameters(self):
            model.weight.data.mul_(-1.).add_(self.by)

    hooks = [Swaps(1.), Swaps(2.)]
    for hook in hooks:
        hook._swap_ema_parameters()
    assert saving.undo_swaps(model, hooks, expected)
    model.bias.data.add_(1.)
    before = saving.fingerprint(model)
    assert not saving.undo_swaps(model, hooks, expected)
    assert saving.fingerprint(model) == pytest.approx(before)
