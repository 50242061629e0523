# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer in the frameworks: registry, config keys, initialization, modes."""
import copy
import subprocess
import sys

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from benchmarks.backbone.subjects import mmpose_extra
from hrformer_mm.models.backbones import HRFormer
from hrformer_mm.registry import MODELS, LazyRegistry

SMALL = dict(channels=(4, 8, 8, 8), heads=(1, 2, 2, 2), modules=(1, 1, 1))


@pytest.mark.parametrize('scope',
                         ['mmpose', 'mmseg', 'mmpretrain', 'mmengine'])
def test_one_name_resolves_from_every_scope(scope):
    import mmengine.registry as root
    with DefaultScope.overwrite_default_scope(scope):
        model = root.MODELS.build(
            dict(type='hrformer_mm.HRFormer', arch=SMALL))
    assert type(model) is HRFormer


def test_mmpose_keeps_its_own_hrformer():
    from mmpose.registry import MODELS as mmpose_models
    assert mmpose_models.get('HRFormer') is not HRFormer
    assert mmpose_models.get('hrformer_mm.HRFormer') is HRFormer


def registries():
    import hrformer_mm.registry as module
    return {k: v for k, v in vars(module).items()
            if isinstance(v, LazyRegistry)}


@pytest.mark.parametrize('registry, name', [
    (r, n) for r, v in registries().items() for n in v.entries])
def test_every_entry_of_the_registries_is_registered(registry, name):
    found = registries()[registry].get(f'hrformer_mm.{name}')
    assert found is not None and found.__name__ == name


@pytest.mark.parametrize('framework, name, extra', [
    ('mmseg', 'OCRHead', 'seg'),
    ('mmpretrain', 'HRFormerClsNeck', 'cls'),
    ('mmpose', 'HRFormer', None),
])
def test_a_missing_framework_is_named_when_its_class_is_requested(
        framework, name, extra):
    code = (f'import sys; sys.modules[{framework!r}] = None\n'
            'import hrformer_mm\n'
            'from mmengine.registry import MODELS\n'
            f'print(MODELS.get("hrformer_mm.{name}"))')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code],
                          capture_output=True, text=True)
    if extra is None:
        assert name in done.stdout and done.returncode == 0
    else:
        last = done.stderr.strip().splitlines()[-1]
        assert f'needs {framework}' in last
        assert f"pip install 'hrformer-mm[{extra}]'" in last


def test_extra_of_mmpose_is_converted_and_not_modified():
    extra = mmpose_extra('small', rel_pos_bias=False)
    extra.update(drop_path_rate=.2, with_pad_mask=True)
    before = copy.deepcopy(extra)
    norm = dict(type='SyncBN', requires_grad=True)
    model = HRFormer(extra=extra, norm_cfg=norm, in_channels=1)
    assert extra == before and norm == dict(type='SyncBN', requires_grad=True)
    assert model.arch.channels == (32, 64, 128, 256)
    assert model.conv1.in_channels == 1
    assert (model.rel_pos_bias, model.mask_padding, model.upsample,
            model.drop_path_rate) == (False, True, 'bilinear', .2)
    assert model.out_indices == (0, 1, 2, 3)
    assert isinstance(model.bn1, nn.SyncBatchNorm)


def test_extra_without_multiscale_output_returns_the_finest_map():
    extra = mmpose_extra('tiny')
    del extra['stage4']['multiscale_output']
    assert HRFormer(extra=extra).out_indices == (0, )


@pytest.mark.parametrize('spoil, names', [
    (lambda e: e.pop('stage3'), ['stage3']),
    (lambda e: e['stage4'].update(num_blocks=(2, 2, 2, 1)), ['num_blocks']),
    (lambda e: e['stage2'].update(num_channels=(8, 16)), ['num_channels']),
    (lambda e: e['stage3'].update(window_sizes=(7, 7, 5)), ['window_sizes']),
])
def test_unsupported_values_of_extra_raise(spoil, names):
    extra = mmpose_extra('tiny')
    spoil(extra)
    with pytest.raises(ValueError) as error:
        HRFormer(extra=extra)
    assert all(n in str(error.value) for n in names)


@pytest.mark.parametrize('kwargs, names', [
    (dict(frozen_stages=5), ['frozen_stages', '-1', '4']),
    (dict(norm_cfg=dict(type='BN')), ['norm_cfg', 'sync_bn']),
])
def test_invalid_values_raise(kwargs, names):
    with pytest.raises(ValueError) as error:
        HRFormer(SMALL, **kwargs)
    assert all(n in str(error.value) for n in names)


@pytest.mark.parametrize('stages', range(-1, 5))
def test_frozen_stages_keep_weights_and_statistics(stages):
    model = HRFormer(SMALL, frozen_stages=stages, out_indices=(0, )).train()
    before = copy.deepcopy(model.state_dict())
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    model(x)[0].mean().backward()
    order = ['conv1 bn1 conv2 bn2', 'layer1 transition1', 'stage2 transition2',
             'stage3 transition3', 'stage4']
    frozen = ' '.join(order[:stages + 1]).split()
    for name, p in model.named_parameters():
        assert (p.grad is None) == (name.split('.')[0] in frozen)
    for name, b in model.named_buffers():
        if name.endswith('running_mean'):
            still = torch.equal(b, before[name])
            assert still == (name.split('.')[0] in frozen), name


def test_norm_eval_keeps_all_statistics():
    model = HRFormer(SMALL, norm_eval=True).train()
    assert model.training
    assert not any(m.training for m in model.modules()
                   if isinstance(m, nn.BatchNorm2d))


def test_train_and_eval_return_the_model():
    model = HRFormer(SMALL)
    assert model.eval() is model and model.train() is model


def test_building_twice_does_not_modify_the_config():
    cfg = dict(type='hrformer_mm.HRFormer', arch=dict(SMALL),
               window_size=[7, 7, 5, 3],
               init_cfg=[dict(type='Normal', layer='Conv2d', std=.001)])
    before = copy.deepcopy(cfg)
    one, two = MODELS.build(cfg), MODELS.build(cfg)
    assert cfg == before
    assert {k: v.shape for k, v in one.state_dict().items()} == \
        {k: v.shape for k, v in two.state_dict().items()}


def spread(model, kind):
    values = torch.cat([p.detach().flatten() for n, p in
                        model.named_parameters() if kind(n)])
    return values.std().item()


def is_conv(name):
    return name.endswith('weight') and any(
        part in name for part in ('conv1', 'conv2', 'fc1', 'fc2', 'dw3x3'))


def test_without_init_cfg_the_weights_of_the_constructor_are_kept():
    torch.manual_seed(0)
    model = HRFormer('tiny')
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_pose_initialization_equals_the_official_one():
    """Convolutions normal 0.001, batch norms 1, tables trunc-normal 0.02."""
    torch.manual_seed(0)
    model = HRFormer('tiny', init_cfg=[
        dict(type='Normal', std=.001, layer=['Conv2d']),
        dict(type='Constant', val=1, layer=['_BatchNorm'])])
    model.init_weights()
    assert abs(spread(model, is_conv) - .001) < 1e-5
    assert abs(spread(model, lambda n: n.endswith('bias_table')) - .02) < 1e-3
    linear = spread(model, lambda n: 'qkv.weight' in n)
    assert linear > .05  # PyTorch's own, as in the official code
    assert all((m.weight == 1).all() for m in model.modules()
               if isinstance(m, nn.BatchNorm2d))
