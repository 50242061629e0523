# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The same config trains in mixed precision with a GPU and without one."""
import logging

import pytest
import torch
from helpers import CONFIGS, tiny_config, write_tiny_coco
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, init_default_scope
from tiny_tasks import ARCH
from torch import nn
from torch.testing import assert_close

from hrformer_mm.engine import optim, preflight
from hrformer_mm.engine.optim import is_amp

NOTICE = 'no GPU found: full instead of mixed precision'


@pytest.fixture
def logged():
    """Lines that are logged during a test."""
    lines = []

    class Keep(logging.Handler):

        def emit(self, record):
            lines.append(record.getMessage())

    logger, handler = MMLogger.get_instance('test_amp'), Keep()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(optim, 'supports_amp', lambda: False)


def build(kind, model, **kwargs):
    optimizer = torch.optim.AdamW(model.parameters(), lr=.1)
    return OPTIM_WRAPPERS.build(
        dict(type=kind, optimizer=optimizer, clip_grad=dict(max_norm=1.),
             accumulative_counts=2, **kwargs))


def train(kind, **kwargs):
    """Weights and state after four batches, with and without accumulation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    wrapper = build(kind, model, **kwargs)
    wrapper.initialize_count_status(model, 0, 4)
    for _ in range(4):
        with wrapper.optim_context(model):
            loss = model(torch.randn(5, 3)).square().mean()
        assert loss.dtype == torch.float32
        wrapper.update_params(loss)
    return model.state_dict(), wrapper.state_dict(), wrapper


@pytest.mark.parametrize('options', [
    {}, dict(dtype='bfloat16', loss_scale=512.),
    dict(loss_scale=dict(init_scale=8.), use_fsdp=True)])
def test_amp_without_gpu_equals_full_precision_with_one_notice(
        options, logged, no_gpu):
    weights, state, wrapper = train('hrformer_mm.AmpOptimWrapper', **options)
    expected, expected_state, _ = train('OptimWrapper')
    assert_close(weights, expected, rtol=0, atol=0)
    assert_close(state, expected_state, rtol=0, atol=0)
    assert isinstance(wrapper, AmpOptimWrapper) and not wrapper.is_mixed
    # Hooks of mmengine and ours take this as a sign of mixed precision.
    assert not hasattr(wrapper, 'loss_scaler')
    assert logged.count(NOTICE) == 1


@pytest.mark.parametrize('options, message', [
    (dict(dtype='float61'), "'float16', 'bfloat16'.*got 'float61'"),
    (dict(loss_scale='static'), "'dynamic', a float.*got 'static'")])
def test_invalid_arguments_raise_without_gpu_too(options, message, no_gpu):
    with pytest.raises(ValueError, match=message):
        build('hrformer_mm.AmpOptimWrapper', nn.Linear(1, 1), **options)


def test_a_state_saved_with_a_gpu_resumes_without_one(no_gpu):
    _, state, wrapper = train('hrformer_mm.AmpOptimWrapper')
    wrapper.load_state_dict(dict(state, loss_scaler=dict(scale=65536.)))
    assert_close(wrapper.state_dict(), state, rtol=0, atol=0)


def test_amp_with_a_gpu_behaves_like_mmengines(monkeypatch, logged):
    """Record the calls of a gradient scaler, since the test has no GPU."""
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper.'
    monkeypatch.setattr(module + 'is_cuda_available', lambda: True)
    monkeypatch.setattr(optim, 'supports_amp', lambda: True)
    model, calls = nn.Linear(3, 2), []

    class Scaler:

        def __getattr__(self, name):
            return lambda *args, **_: calls.append(name) or (
                args[0] if args else {})

    wrapper = build('hrformer_mm.AmpOptimWrapper', model, dtype='bfloat16')
    wrapper.loss_scaler = Scaler()
    with wrapper.optim_context(model):
        out = model(torch.ones(1, 3))
    assert out.dtype == torch.bfloat16
    wrapper.backward(out.sum())
    wrapper.step()
    assert calls == ['scale', 'unscale_', 'step', 'update']
    assert 'loss_scaler' in wrapper.state_dict()
    assert NOTICE not in logged


@pytest.mark.parametrize('kind, expected', [
    ('AmpOptimWrapper', True), ('mmengine.AmpOptimWrapper', True),
    (AmpOptimWrapper, True), ('hrformer_mm.AmpOptimWrapper', True),
    (optim.AmpOptimWrapper, True), ('OptimWrapper', False),
    (OptimWrapper, False), (None, False)])
def test_mixed_precision_is_detected(kind, expected):
    assert is_amp(kind) is expected


@pytest.mark.parametrize('path', sorted(
    CONFIGS.glob('_base_/*/schedules/*.py')), ids=lambda p: p.stem)
def test_every_config_has_an_optim_wrapper_that_works_without_a_gpu(path):
    kind = Config.fromfile(path).optim_wrapper.type
    assert kind in ('hrformer_mm.AmpOptimWrapper', 'OptimWrapper')


def test_all_configs_take_their_optimizer_from_a_schedule():
    """So that the test above has seen them all."""
    assert not [p for p in CONFIGS.rglob('*.py')
                if "OptimWrapper'" in p.read_text()
                and not p.stem.startswith('schedule_')]


@pytest.mark.parametrize('kind', [
    'hrformer_mm.AmpOptimWrapper', 'AmpOptimWrapper'])
def test_a_dry_run_builds_the_optimizer_that_training_builds(
        kind, tmp_path, no_gpu):
    cfg = tiny_config('pose/hrformer_t_coco_256x192.py', tmp_path / 'run',
                      write_tiny_coco(tmp_path / 'coco'),
                      **{'model.backbone.arch': ARCH,
                         'model.head.in_channels': 8})  # yapf: disable
    cfg.optim_wrapper.update(type=kind, dtype='float16')
    init_default_scope('mmpose')
    flight = preflight.Flight(cfg, 1, str(tmp_path))
    assert [f.state for f in preflight.inputs.check_config(flight)] == ['ok']
    found, = preflight.inputs.check_machine(flight)
    assert found.state == 'warn' and 'full precision' in found.found


@pytest.mark.parametrize('kind', ['QuietConstructor', 'FewGroupsConstructor'])
def test_parameter_options_are_summarized_in_the_log(kind, logged):
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)])
    getattr(optim, kind)(
        dict(type='OptimWrapper',
             optimizer=dict(type='SGD', lr=.1, weight_decay=.5)),
        dict(bias_decay_mult=0., custom_keys={'8.': dict(lr_mult=.5)}))(model)
    lines = [line for line in logged if 'param' in line]
    assert sorted(lines) == [
        'paramwise_cfg: lr=0.05 for 2 parameters',
        'paramwise_cfg: lr_mult=0.5 for 2 parameters',
        'paramwise_cfg: weight_decay=0.0 for 8 parameters',
        'paramwise_cfg: weight_decay=0.5 for 2 parameters']
