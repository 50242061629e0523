# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""--resume with another config than that of the checkpoint.

The position comes from the checkpoint, in epochs and samples; lengths and
learning rates come from the config.
"""
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, PARAM_SCHEDULERS
from toy import CallAt, QuietRunner, toy_config

import hrformer_mm.engine.schedulers  # noqa: F401, which registers its classes
from hrformer_mm.engine.hooks.positions import Feed
from hrformer_mm.engine.hooks.schedules import follow_config

slow = pytest.mark.slow
EPOCH = 6  # iterations of the unit tests


@HOOKS.register_module()
class KeepRates(Hook):
    """Keep the learning rate of each iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.rates[runner.iter] = runner.optim_wrapper.get_lr()['lr'][0]


class Killed(BaseException):
    """Passes everything, as a kill would."""


def die(runner):
    raise Killed


CallAt.functions['die_quietly'] = die


def train(folder, killed_at=-1, **options):
    """Train a toy config; return the runner with its learning rates."""
    cfg = toy_config(folder, custom_hooks=[
        dict(type='KeepRates'),
        dict(type='CallAt', name='die_quietly', at=killed_at)], **{
            'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None,
            'default_hooks.checkpoint.save_best': None}, **options)
    runner = QuietRunner.from_cfg(cfg)
    runner.rates = {}
    with suppress(Killed):
        runner.train()
    return runner


# Schedules alone


def build(configs, lr=.1, groups=3, end=3 * EPOCH):
    """Build schedulers on several groups of a few different rates."""
    params = [dict(params=[torch.nn.Parameter(torch.zeros(1))],
                   lr=lr * (1 + i % 2)) for i in range(groups)]
    wrapper = OptimWrapper(torch.optim.SGD(params, lr=lr, momentum=.9))
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(dict(c, end=c.get('end', end if c.get('by_epoch') is False
                                   else end // EPOCH))),
            default_args=dict(optimizer=wrapper, epoch_length=EPOCH))
        for c in configs]
    return wrapper, schedulers


def advance(wrapper, schedulers, begin, end):
    """Step as a training does; return the rates of all groups by step."""
    rates = []
    for i in range(begin, end):
        rates.append([group['lr'] for group in wrapper.param_groups])
        for s in schedulers:
            if not s.by_epoch:
                s.step()
        for s in schedulers:
            if s.by_epoch and (i + 1) % EPOCH == 0:
                s.step()
    return rates


def resumed(old, new, at):
    """Rates after a resume with a new config, and as if never stopped."""
    wrapper, schedulers = build(*old)
    advance(wrapper, schedulers, 0, at)
    checkpoint = dict(
        optimizer=wrapper.state_dict(), meta=dict(epoch=at // EPOCH, iter=at),
        param_schedulers=[s.state_dict() for s in schedulers])
    wrapper, schedulers = build(*new)
    runner = SimpleNamespace(
        optim_wrapper=wrapper, param_schedulers=schedulers,
        train_loop=SimpleNamespace(dataloader=range(EPOCH)), hooks=[])
    text = follow_config(runner, checkpoint, at, is_moved=False)
    wrapper.load_state_dict(checkpoint['optimizer'])
    for s, state in zip(schedulers, checkpoint['param_schedulers']):
        s.load_state_dict(state)
    end = new[3] if len(new) > 3 else 3 * EPOCH
    after = advance(wrapper, schedulers, at, end)
    expected = advance(*build(*new), 0, end)[at:]
    return text, after, expected


SCHEDULES = dict(
    pose=[dict(type='LinearLR', start_factor=.01, by_epoch=False, end=9),
          dict(type='MultiStepLR', milestones=[2], by_epoch=True)],
    cls=[dict(type='hrformer_mm.WarmupCosineLR', warmup=1, by_epoch=True,
              convert_to_iter_based=True)],
    seg=[dict(type='hrformer_mm.WarmupPolyLR', warmup=4, by_epoch=False)],
    poly=[dict(type='PolyLR', eta_min=1e-4, power=.9, by_epoch=False)],
    cosine=[dict(type='LinearLR', start_factor=.05, by_epoch=False, end=5),
            dict(type='CosineAnnealingLR', convert_to_iter_based=True,
                 by_epoch=True, eta_min=1e-6)],
    step=[dict(type='StepLR', step_size=1, by_epoch=True)],
    momentum=[dict(type='LinearMomentum', start_factor=.5, by_epoch=False,
                   end=12)])  # yapf: disable


@pytest.mark.parametrize('at', [4, 12, 18])
@pytest.mark.parametrize('name', SCHEDULES)
def test_a_longer_schedule_continues_where_the_checkpoint_was(name, at):
    configs = SCHEDULES[name]
    text, after, expected = resumed((configs, ), (configs, .1, 3, 5 * EPOCH),
                                    at)
    assert after == expected  # the same arithmetic, so the same bits
    if name not in ('momentum', 'pose'):  # whose end is not asked for
        assert 'end' in text


@pytest.mark.parametrize('name', SCHEDULES)
def test_the_learning_rate_of_the_config_is_used(name):
    text, after, expected = resumed((SCHEDULES[name], .1),
                                    (SCHEDULES[name], .02), 10)
    assert after == expected
    if name != 'momentum':
        assert 'base_values 0.1 (first of 4) -> 0.02 (first of 4)' in text


def test_another_warm_up_of_the_config_is_used():
    new = [dict(SCHEDULES['seg'][0], warmup=8)]
    text, after, expected = resumed((SCHEDULES['seg'], ), (new, ), 6)
    assert after == expected and 'WarmupPolyLR.warmup 4 -> 8' in text


def test_another_schedule_of_the_config_is_used():
    text, after, expected = resumed((SCHEDULES['pose'], ),
                                    (SCHEDULES['cls'], ), 7)
    assert after == expected and '2 -> 1 schedulers' in text


@pytest.mark.parametrize('name', SCHEDULES)
def test_equal_schedules_are_restored_as_they_are(name):
    text, after, expected = resumed((SCHEDULES[name], ), (SCHEDULES[name], ),
                                    10)
    assert text == '' and after == expected


def test_a_schedule_that_follows_metrics_is_kept_with_a_warning():
    plateau = dict(type='ReduceOnPlateauLR', monitor='loss', by_epoch=True)
    old = [dict(type='LinearLR', by_epoch=False, end=9), plateau]
    new = [dict(old[0], end=12), plateau]
    wrapper, schedulers = build(new)
    saved = build(old)
    checkpoint = dict(
        optimizer=saved[0].state_dict(), meta=dict(epoch=0, iter=0),
        param_schedulers=[s.state_dict() for s in saved[1]])
    runner = SimpleNamespace(
        optim_wrapper=wrapper, param_schedulers=schedulers,
        train_loop=SimpleNamespace(dataloader=range(EPOCH)), hooks=[])
    text = follow_config(runner, checkpoint, 0, is_moved=False)
    assert text.startswith('ReduceOnPlateauLR follows metrics')
    assert 'LinearLR.end 9 -> 12' in text
    assert checkpoint['param_schedulers'][0]['end'] == 9


def test_schedules_of_several_optimizers_are_kept_with_a_warning():
    saved, old = build(SCHEDULES['poly'])
    wrapper, new = build(SCHEDULES['poly'], .1, 3, 5 * EPOCH)
    checkpoint = dict(
        optimizer=dict(a=saved.state_dict()), meta=dict(epoch=1, iter=EPOCH),
        param_schedulers=dict(a=[s.state_dict() for s in old]))
    runner = SimpleNamespace(optim_wrapper=wrapper,
                             param_schedulers=dict(a=new), hooks=[])
    text = follow_config(runner, checkpoint, EPOCH, is_moved=False)
    assert text.startswith('schedules of several optimizers are kept')
    assert f'a: PolyLR.end {3 * EPOCH} -> {5 * EPOCH}' in text
    runner.param_schedulers = dict(a=old)
    assert follow_config(runner, checkpoint, EPOCH, is_moved=False) == ''


# Positions alone


@pytest.mark.parametrize('drop_last', [True, False])
@pytest.mark.parametrize('length', [0, 12, 13])
@pytest.mark.parametrize('batch, world', [(2, 1), (4, 2), (5, 3)])
def test_iterations_convert_to_positions_and_back(batch, world, length,
                                                  drop_last):
    feed = Feed(batch, world, length, drop_last)
    for iteration in range(40):
        position = feed.advance((0, 0), iteration)
        assert feed.iteration(position) == iteration
        for more in (0, 1, 7):
            assert feed.advance(position, more) == feed.advance(
                (0, 0), iteration + more)


@pytest.mark.parametrize('old, new', [(2, 4), (4, 2), (2, 3), (4, 3)])
def test_passes_end_at_the_same_position_for_any_batch(old, new):
    old, new = Feed(old, 1, 12, False), Feed(new, 1, 12, False)
    for passes in range(3):
        iteration = old.steps(12) * passes
        assert new.iteration(old.advance((0, 0), iteration)) == (
            new.steps(12) * passes)


# Whole trainings

COSINE = {'param_scheduler': [
    dict(type='hrformer_mm.WarmupCosineLR', warmup=1, by_epoch=True,
         convert_to_iter_based=True)]}  # yapf: disable
POLY = {'param_scheduler': [
    dict(type='hrformer_mm.WarmupPolyLR', warmup=4, by_epoch=False)]}


BATCH_4 = {'train_dataloader.batch_size': 4}


@pytest.mark.parametrize('by_epoch, then, now, start', [
    pytest.param(True, COSINE, {**COSINE, 'train_cfg.max_epochs': 5}, 18,
                 marks=slow),
    (False, POLY, {**POLY, 'train_cfg.max_iters': 30}, 18),
    (True, dict(COSINE, killed_at=8), {**COSINE, **BATCH_4}, 3),
    pytest.param(True, dict(**COSINE, **BATCH_4, killed_at=4), COSINE, 6,
                 marks=slow),
    pytest.param(False, dict(POLY, killed_at=14), {**POLY, **BATCH_4}, 6,
                 marks=slow),
], ids=['more epochs', 'more iterations', 'larger batch', 'smaller batch',
        'larger batch, by iterations'])  # yapf: disable
def test_a_resumed_training_has_the_rates_of_its_own_config(
        by_epoch, then, now, start, tmp_path):
    train(tmp_path, by_epoch=by_epoch, **then)
    runner = train(tmp_path, by_epoch=by_epoch, resume=True, **now)
    whole = train(tmp_path / 'whole', by_epoch=by_epoch, **now)
    expected = {i: lr for i, lr in whole.rates.items() if i >= start}
    assert runner.rates == expected and expected
