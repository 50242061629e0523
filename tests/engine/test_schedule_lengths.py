# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Schedules that follow the length of the training, and warnings of others."""
import pytest
from helpers import CONFIGS
from mmengine.config import Config
from toy import QuietRunner, toy_config

from hrformer_mm.engine.hooks.lengths import Length, build, remarks
from hrformer_mm.engine.preflight import Flight, steps

EPOCH = 100  # updates of an epoch in these tests


def length_of(train_cfg, factor=1., epoch=EPOCH):
    """Return the length of a config, made longer or shorter."""
    epochs = train_cfg.get('max_epochs')
    if epochs:
        epochs = round(epochs * factor)
        return Length(epochs, epochs * epoch, epoch)
    return Length(None, round(train_cfg.max_iters * factor), epoch)


def found(configs, length):
    return [f for f, _ in remarks(build(configs, .1, length), length)]


def shape(configs, length, lr=.1):
    """Return the rate before the first, the middle and the last update.

    Every step of a training is a step of those that count iterations.
    """
    schedulers = build(configs, lr, length)
    group = schedulers[0].optimizer.param_groups[0]
    schedulers[0].optimizer.step()  # or schedulers warn
    rates = []
    for i in range(length.updates):
        rates.append(group['lr'])
        for s in schedulers:
            if not s.by_epoch or (i + 1) % length.epoch_length == 0:
                s.step()
    return rates[0], rates[len(rates) // 2], rates[-1]


# Text of a config that says something about its schedule, or inherits it.
WORDS = ('param_scheduler', 'max_epochs', 'max_iters')
SAYING = [p for p in sorted(CONFIGS.glob('*/**/*.py'))
          if any(word in p.read_text() for word in WORDS)]


def schedules_of(paths):
    """Return configs that differ in schedule or length."""
    found = {}
    for path in paths:
        cfg = Config.fromfile(path)
        if cfg.get('param_scheduler'):
            key = f'{cfg.param_scheduler} {cfg.train_cfg}'
            found.setdefault(key, cfg)
    return list(found.values())


@pytest.fixture(scope='module')
def schedules():
    """Return the schedules of all configs, from the files that say them."""
    return schedules_of(SAYING)


@pytest.mark.slow
def test_no_config_has_another_schedule(schedules):
    """Which needs a minute to read all of them."""
    paths = [p for p in CONFIGS.glob('[!_]*/**/*.py')]
    known = {str(cfg.param_scheduler) for cfg in schedules}
    assert len(paths) > 100
    assert {str(c.param_scheduler) for c in schedules_of(paths)} <= known


def test_schedules_of_all_configs_follow_a_longer_training(schedules):
    assert len(schedules) >= 12
    for cfg in schedules:
        for factor in (1, 2, 3.5):
            length = length_of(cfg.train_cfg, factor)
            assert found(cfg.param_scheduler, length) == [], cfg.filename


def test_only_milestones_can_be_beyond_half_the_training(schedules):
    for cfg in schedules:
        half = length_of(cfg.train_cfg, .5)
        texts = found(cfg.param_scheduler, half)
        configs = cfg.param_scheduler
        configs = configs if isinstance(configs, list) else [configs]
        late = any(max(c.get('milestones', [-1])) >= (half.epochs or 0)
                   for c in configs)
        assert len(texts) == late, (cfg.filename, texts)
        assert all('milestones' in text for text in texts)


def test_rates_of_all_configs_fall_to_the_end_of_another_length(schedules):
    """Compare the rates at equal shares of a training and a longer one.

    The warm-up is the same number of steps in both, so those shares of ours
    that decay after it differ by up to a hundredth of the first rate.
    """
    different = {str(cfg.param_scheduler): cfg for cfg in schedules}
    for text, cfg in different.items():
        if 'MultiStepLR' in text:
            continue
        train_cfg = Config(dict(cfg.train_cfg))
        if train_cfg.get('max_iters', 0) > 10000:
            train_cfg.max_iters = 10000
        whole, longer = (shape(cfg.param_scheduler, length_of(
            train_cfg, factor, 20)) for factor in (1, 2))
        assert longer[1] == pytest.approx(whole[1], abs=.01), cfg.filename
        assert longer[2] == pytest.approx(whole[2], abs=1e-3), cfg.filename
        assert longer[2] < .003


LINEAR = dict(type='LinearLR', by_epoch=False, end=9)
WARMUP = dict(type='hrformer_mm.WarmupPolyLR', by_epoch=False, warmup=9)


@pytest.mark.parametrize('configs, epochs, says', [
    (dict(type='PolyLR', by_epoch=False, end=20), None,
     'PolyLR ends after 20 iterations, but training makes 40, so lr stays'),
    (dict(type='PolyLR', by_epoch=False, end=80), None,
     'PolyLR ends after 80 iterations, but training makes 40, so it is cut'),
    (dict(type='PolyLR', by_epoch=True, end=3), 4,
     'PolyLR ends after 3 epochs, but training makes 4, so lr stays'),
    (dict(type='CosineAnnealingLR', T_max=3), 4,
     'CosineAnnealingLR has T_max=3 epochs, but makes 4, so lr rises again'),
    (dict(type='CosineAnnealingLR', T_max=20, by_epoch=False), None,
     'has T_max=20 iterations, but makes 40, so lr rises again'),
    (dict(type='CosineAnnealingLR', T_max=80, by_epoch=False), None,
     'has T_max=80 iterations, but makes 40, so lr does not reach its lowest'),
    (dict(type='CosineAnnealingLR', T_max=2, end=2,
          convert_to_iter_based=True), 4,
     'CosineAnnealingLR ends after 20 iterations, but training makes 40'),
    (dict(type='OneCycleLR', eta_max=.1, total_steps=20, by_epoch=False),
     None, 'OneCycleLR has total_steps=20 iterations, but makes 40'),
    (dict(type='MultiStepLR', milestones=[2, 4, 6]), 4,
     'MultiStepLR does not reach its milestones [4, 6], as it ends after 4'),
    (dict(type='MultiStepLR', milestones=[2, 3], end=3), 4,
     'MultiStepLR does not reach its milestones [3], as it ends after 3'),
    (dict(type='MultiStepLR', milestones=[2]), None,
     'MultiStepLR counts epochs, but training counts iterations'),
    (dict(LINEAR, end=50), None,
     'LinearLR ends after 50 iterations, but training makes 40'),
    (dict(LINEAR, begin=40, end=50), None,
     'LinearLR begins after 40 iterations, but training makes 40'),
    (dict(type='LinearLR', start_factor=1., end_factor=.1, by_epoch=False,
          end=20), None, 'LinearLR ends after 20 iterations, but training'),
    (dict(WARMUP, warmup=40), None,
     'WarmupPolyLR warms up for 40 iterations, but makes 40'),
    (dict(WARMUP, end=20), None,
     'WarmupPolyLR ends after 20 iterations, but training makes 40'),
    (dict(type='LinearMomentum', start_factor=1., end_factor=.5, end=2), 4,
     'LinearMomentum ends after 2 epochs, but training makes 4, so momentum'),
])  # yapf: disable
def test_a_schedule_that_does_not_fit_is_reported(configs, epochs, says):
    length = Length(epochs, 40, 10)
    (text, ) = found([LINEAR, configs], length)
    assert says in text


@pytest.mark.parametrize('configs, epochs', [
    ([LINEAR], None),
    ([LINEAR, dict(type='PolyLR', by_epoch=False, begin=9, end=40)], None),
    ([LINEAR, dict(type='PolyLR', by_epoch=False)], None),
    ([dict(type='CosineAnnealingLR', T_max=2, end=2),
      dict(type='ConstantLR', begin=2)], 4),
    ([dict(LINEAR, by_epoch=True, end=1, convert_to_iter_based=True),
      dict(type='CosineAnnealingLR', T_max=3, begin=1, end=4)], 4),
    ([dict(type='MultiStepLR', milestones=[2, 3], end=4)], 8),
    ([dict(type='ReduceOnPlateauLR', monitor='loss', end=2)], 4),
    ([dict(type='OneCycleLR', eta_max=.1, by_epoch=False)], None),
    ([WARMUP], None),
])  # yapf: disable
def test_schedules_that_fit_cause_no_warning(configs, epochs):
    assert found(configs, Length(epochs, 40, 10)) == []


@pytest.mark.parametrize('window', [1, 4])
def test_training_warns_of_a_schedule_that_ends_early(window, tmp_path):
    """It has 18 iterations, or 5 updates of 4 batches and what is left."""
    end = 12 if window == 1 else 18
    cfg = toy_config(tmp_path, by_epoch=False, **{
        'optim_wrapper.accumulative_counts': window, 'param_scheduler': [
            dict(type='PolyLR', by_epoch=False, end=end)],
        'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None,
        'default_hooks.checkpoint.save_best': None})  # yapf: disable
    QuietRunner.from_cfg(cfg).train()
    (log, ) = tmp_path.glob('*/*.log')
    text = log.read_text()
    assert ('PolyLR ends after 12 iterations, but training makes 18'
            if window == 1 else 'PolyLR ends after 18 updates, but training '
            'makes 5') in text
    assert 'remove end, which then follows train_cfg.max_iters' in text


@pytest.mark.parametrize('processes, texts', [
    (1, ['fits 18 iterations']),
    (2, ['fits 18 iterations'])])
def test_the_dry_run_accepts_schedules_of_iterations(processes, texts,
                                                     tmp_path):
    assert schedule_findings(
        toy_config(tmp_path, by_epoch=False, param_scheduler=[WARMUP]),
        processes) == [('ok', texts[0])]


def schedule_findings(cfg, processes=1):
    flight = Flight(cfg, processes, '')
    flight.sizes['train_dataloader'] = 12
    return [(f.state, f.found) for f in steps.check_schedule(flight)]


def test_the_dry_run_counts_updates_of_all_processes(tmp_path):
    cfg = toy_config(tmp_path, param_scheduler=[dict(LINEAR, end=10)])
    assert schedule_findings(cfg) == [('ok', 'fits 3 epochs of 6 iterations')]
    assert schedule_findings(cfg, 2) == [
        ('warn', 'LinearLR ends after 10 iterations, but training makes 9, '
         'so it is cut off')]
    cfg.optim_wrapper.accumulative_counts = 4
    assert schedule_findings(cfg, 1)[0] == (
        'warn', 'LinearLR ends after 10 updates, but training makes 6, so it '
        'is cut off')


def test_the_dry_run_reports_a_schedule_that_cannot_be_built(tmp_path):
    cfg = toy_config(tmp_path)
    cfg.param_scheduler = dict(type='PolyLR', by_epoch=False, powder=1)
    ((state, text), ) = schedule_findings(cfg)
    assert state == 'FAIL' and 'powder' in text
