# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Gradient accumulation, scaled learning rates, data without a full batch."""
import pytest
from toy import QuietRunner, toy_config

from hrformer_mm.engine import train as training
from hrformer_mm.engine.preflight import Flight, steps

SMALL = {'train_dataloader.batch_size': 16, 'train_dataloader.drop_last': True}


@pytest.mark.parametrize('by_epoch', [True, False])
def test_data_without_a_full_batch_raise(by_epoch, tmp_path):
    """Twelve samples in batches of 16."""
    cfg = toy_config(tmp_path, by_epoch=by_epoch, **SMALL, **{
        'train_dataloader.sampler.type': 'DefaultSampler'})
    says = '12 samples on 1 process.* do not fill one batch of 16'
    with pytest.raises(ValueError, match=says):
        training.train(cfg.copy())
    with pytest.raises(ValueError, match=says):  # under other launchers
        QuietRunner.from_cfg(cfg).train()
    assert not list(tmp_path.glob('*.pth'))


def test_converted_schedules_raise_for_epochs_without_iterations(tmp_path):
    cfg = toy_config(tmp_path, **SMALL)
    cfg.param_scheduler = dict(
        type='hrformer_mm.WarmupCosineLR', warmup=1, by_epoch=True,
        convert_to_iter_based=True)
    with pytest.raises(ValueError, match='an epoch has no iteration'):
        QuietRunner.from_cfg(cfg).train()


def test_an_empty_dataset_raises(tmp_path, monkeypatch):
    """Endless samplers would look for a sample for ever."""
    monkeypatch.setattr('toy.SAMPLES', 0)
    for by_epoch in (True, False):
        cfg = toy_config(tmp_path, by_epoch=by_epoch, workers=1, **{
            'train_dataloader.dataset.serialize_data': False})
        with pytest.raises(ValueError, match='the dataset has no samples'):
            training.train(cfg)


def test_an_infinite_sampler_fills_batches_across_epochs(tmp_path):
    cfg = toy_config(tmp_path, by_epoch=False, **SMALL,
                     **{'train_cfg.max_iters': 2})
    training.train(cfg)
    assert (tmp_path / 'iter_2.pth').is_file()


@pytest.mark.parametrize('base, factor', [(4, 1.), (8, .5), (2, 2.)])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_learning_rates_are_scaled_by_all_samples_of_an_update(
        base, factor, by_epoch, tmp_path):
    """Two batches of 2 make an update."""
    cfg = toy_config(tmp_path, by_epoch=by_epoch, param_scheduler=None, **{
        'optim_wrapper.accumulative_counts': 2, 'train_cfg.val_interval': 99,
        'train_dataloader.dataset.indices': 4,
        'train_cfg.max_epochs' if by_epoch else 'train_cfg.max_iters': 2,
        'default_hooks.checkpoint.interval': 99,
        'auto_scale_lr': dict(base_batch_size=base, enable=True)})
    runner = QuietRunner.from_cfg(cfg)
    runner.train()
    assert runner.optim_wrapper.get_lr()['lr'] == [.05 * factor]


def findings(cfg, processes=1):
    flight = Flight(cfg, processes, '')
    flight.sizes['train_dataloader'] = 12
    return list(steps.check_batch(flight))


@pytest.mark.parametrize('by_epoch, state', [(True, 'FAIL'), (False, None)])
def test_the_dry_run_reports_data_without_a_full_batch(by_epoch, state,
                                                       tmp_path):
    found = findings(toy_config(tmp_path, by_epoch=by_epoch, **SMALL))
    assert [f.state for f in found[1:]] == ([state] if state else [])


def test_the_dry_run_counts_all_samples_of_an_update(tmp_path):
    options = {'optim_wrapper.accumulative_counts': 2,
               'auto_scale_lr': dict(base_batch_size=8, enable=True)}
    found = findings(toy_config(tmp_path, **options), processes=2)
    assert [f.state for f in found] == ['ok']
    assert found[0].found == '2 x 2 x 2 steps = 8, learning rate 0.05 x 1'


def test_the_dry_run_reports_the_number_of_updates(tmp_path):
    options = {'optim_wrapper.accumulative_counts': 4}
    found = findings(toy_config(tmp_path, by_epoch=False, **options))
    assert [f.state for f in found] == ['ok', 'warn']
    assert found[1].found == (
        'max_iters=18 iterations make 5 updates of 8 samples')
    assert found[1].fix.startswith(
        'multiply train_cfg.max_iters and val_interval by 4')
