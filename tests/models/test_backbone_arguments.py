# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The backbone takes and refuses the arguments of the frameworks' users."""
import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.backbone.subjects import mmpose_extra
from hrformer_mm.core.blocks import Block
from hrformer_mm.core.hrformer import TransformerBranch
from hrformer_mm.models.backbones import HRFomerModule, HRFormer, HRFormerBlock

SMALL = dict(channels=(8, 16, 32, 64), heads=(1, 2, 2, 4), modules=(1, 2, 1))


def extra_of(**stage2):
    extra = mmpose_extra('tiny')
    for n in (2, 3, 4):
        extra[f'stage{n}'].update(num_modules=1, num_blocks=(1, ) * n)
    extra['stage2'].update(stage2)
    return extra


# MMPose's test of its backbone, with another import


def module_arguments(branches=2, blocks=2, **changes):
    sizes = dict(num_blocks=(blocks, ), num_inchannels=(32, 64),
                 num_channels=(32, 64), num_heads=(1, 2),
                 num_window_sizes=(7, ), num_mlp_ratios=(4, ))
    return dict(num_branches=branches, block=HRFormerBlock,
                drop_paths=(0., .1)[:blocks], norm_cfg=dict(type='BN'),
                **{**{k: (v * 2)[:branches] for k, v in sizes.items()},
                   **changes})


@pytest.mark.parametrize('branches, blocks, several', [
    (2, 2, True), (2, 2, False), (1, 1, True)])
def test_modules_have_mmposes_arguments(branches, blocks, several):
    module = HRFomerModule(
        **module_arguments(branches, blocks, multiscale_output=several))
    maps = [torch.randn(1, 32, 64, 64), torch.randn(1, 64, 32, 32)][:branches]
    found = module(maps)
    assert [x.shape for x in found] == [
        x.shape for x in maps[:branches if several else 1]]
    assert all((x >= 0).all() for x in found) == (branches > 1)


@pytest.mark.parametrize('change, words', [
    (dict(num_blocks=[2, 2, 2]), 'num_blocks must have 2 values'),
    (dict(num_channels=[2]), 'num_channels must have 2 values'),
    (dict(num_inchannels=[2]), 'num_inchannels must have 2 values'),
    (dict(num_heads=[2]), 'num_heads must have 2 values'),
    (dict(num_inchannels=(64, 64)), 'must be equal'),
    (dict(drop_paths=(.1, )), 'drop_paths must have 2 values'),
    (dict(block=nn.Conv2d), 'block must be HRFormerBlock')])
def test_wrong_arguments_of_modules_raise(change, words):
    with pytest.raises(ValueError, match=words):
        HRFomerModule(**{**module_arguments(), **change})


def test_a_block_of_mmpose_is_our_block_on_maps():
    block = HRFormerBlock(8, 8, num_heads=2, window_size=3, with_rpe=False)
    block.eval()
    x = torch.randn(2, 8, 7, 5)
    assert HRFormerBlock.expansion == 1
    torch.testing.assert_close(
        block(x), TransformerBranch(block_like(block))(x))
    with pytest.raises(ValueError, match='must be equal'):
        HRFormerBlock(8, 16, num_heads=2)


def test_a_fractional_ratio_of_the_feed_forward_is_refused():
    """It was rounded down without a word."""
    extra = extra_of()
    for n in (2, 3, 4):
        stage = extra[f'stage{n}']
        stage['mlp_ratios'] = [2.5] * len(stage['num_blocks'])
    for build in (lambda: HRFormer(extra=extra),
                  lambda: HRFormerBlock(8, 8, 2, mlp_ratio=2.5)):
        with pytest.raises(ValueError, match='whole number.*2.5'):
            build()
    assert HRFormerBlock(8, 8, 2, mlp_ratio=2.).ffn.fc1.out_channels == 16


def block_like(block):
    own = Block(8, 2, window_size=3, rel_pos_bias=False)
    own.load_state_dict(block.state_dict())
    return own.eval()


def test_cases_of_mmposes_own_test_pass():
    extra = extra_of()
    extra.update(drop_path_rate=.2,
                 upsample=dict(mode='bilinear', align_corners=False))
    for n in (2, 3, 4):
        extra[f'stage{n}'].pop('multiscale_output', None)
    extra['stage4']['num_branches'] = 3
    with pytest.raises(ValueError):
        HRFormer(extra=extra)
    extra['stage4']['num_branches'] = 4
    model = HRFormer(extra=extra)
    model.init_weights()
    model.train()
    image = torch.randn(1, 3, 64, 64)
    found = model(image)
    assert len(found) == 1 and found[0].shape == (1, 18, 16, 16)
    extra['stage4']['multiscale_output'] = True
    model = HRFormer(extra=extra, norm_cfg=dict(type='BN'), norm_eval=True,
                     transformer_norm_cfg=dict(type='LN', eps=1e-6))
    model.init_weights()
    model.train()
    assert not any(m.training for m in model.modules()
                   if isinstance(m, _BatchNorm))
    assert [x.shape[1:] for x in model(image)] == [
        (18, 16, 16), (36, 8, 8), (72, 4, 4), (144, 2, 2)]


@pytest.mark.parametrize('change, words', [
    (dict(num_branches=3), 'stage2.num_branches must be 2'),
    (dict(num_branches=1), 'stage2.num_branches must be 2'),
    (dict(num_blocks=(2, )), 'stage2.num_blocks must have 2'),
    (dict(num_blocks=(2, 2, 2)), 'stage2.num_blocks must have 2'),
    (dict(num_blocks=2), 'stage2.num_blocks must have 2'),
    (dict(num_channels=(18, 36, 72)), 'stage2.num_channels must have 2'),
    (dict(num_heads=(1, )), 'stage2.num_heads must have 2'),
    (dict(window_sizes=(7, 7, 7)), 'stage2.window_sizes must have 2'),
    (dict(mlp_ratios=(4, )), 'stage2.mlp_ratios must have 2'),
    (dict(block='BASIC'), "must be 'HRFORMERBLOCK', got 'BASIC'.*_delete_"),
])
def test_extra_is_as_strict_as_mmposes(change, words):
    with pytest.raises(ValueError, match=words):
        HRFormer(extra=extra_of(**change))


@pytest.mark.parametrize('change, words', [
    (dict(num_blocks=(3, )), 'stage1.num_blocks'),
    (dict(num_channels=(32, )), 'stage1.num_channels'),
    (dict(block='BASIC'), 'stage1.block'),
    (dict(num_branches=2), 'stage1.num_branches'),
])
def test_an_unsupported_first_stage_raises(change, words):
    extra = extra_of()
    extra['stage1'].update(change)
    with pytest.raises(ValueError, match=words):
        HRFormer(extra=extra)


@pytest.mark.parametrize('upsample, wanted', [
    (dict(mode='bilinear', align_corners=False), 'bilinear'),
    (dict(mode='bilinear', align_corners=True), 'bilinear_aligned'),
    (dict(mode='nearest', align_corners=None), 'nearest'),
    (dict(mode='bicubic'), None), (dict(mode='nearest', align_corners=True),
                                   None),
])
def test_upsampling_of_extra_is_applied_or_raises(upsample, wanted):
    extra = dict(extra_of(), upsample=upsample)
    if wanted is None:
        with pytest.raises(ValueError, match='extra.upsample'):
            HRFormer(extra=extra)
    else:
        assert HRFormer(extra=extra).upsample == wanted


@pytest.mark.parametrize('kind', ['BN', 'BN2d', 'SyncBN'])
def test_batch_norm_options_are_applied(kind):
    model = HRFormer(extra=extra_of(), norm_cfg=dict(
        type=kind, eps=1e-3, momentum=.03, requires_grad=False))
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and all((m.eps, m.momentum) == (1e-3, .03) for m in norms)
    assert not any(p.requires_grad for m in norms for p in m.parameters())
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms) == (
        kind == 'SyncBN')


@pytest.mark.parametrize('kwargs, words', [
    (dict(norm_cfg=dict(type='GN', num_groups=2)), "norm_cfg.type .* 'GN'"),
    (dict(norm_cfg=dict(type='IN')), "norm_cfg.type .* 'IN'"),
    (dict(norm_cfg=dict(type='BN', affine=False)), 'norm_cfg.affine'),
    (dict(norm_cfg=dict(type='BN', track_running_stats=False)),
     'norm_cfg.track_running_stats'),
    (dict(norm_cfg=dict(type='BN', foo=1)), "got 'foo'"),
    (dict(transformer_norm_cfg=dict(type='BN')), 'transformer_norm_cfg'),
    (dict(transformer_norm_cfg=dict(type='LN', bias=False)),
     'transformer_norm_cfg'),
    (dict(conv_cfg=dict(type='DCNv2')), 'conv_cfg must be None'),
])
def test_unsupported_norms_and_convolutions_raise(kwargs, words):
    with pytest.raises(ValueError, match=words):
        HRFormer(extra=extra_of(), **kwargs)


def test_layer_norm_options_are_applied():
    model = HRFormer(extra=extra_of(), transformer_norm_cfg=dict(
        type='LN', eps=1e-4))
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert norms and all(m.eps == 1e-4 for m in norms)


def test_extra_can_be_the_first_positional_argument():
    extra, before = extra_of(), copy.deepcopy(extra_of())
    named = HRFormer(extra=extra, in_channels=4, conv_cfg=None)
    placed = HRFormer(extra, 4)
    assert extra == before
    assert placed.conv1.in_channels == 4
    assert {k: v.shape for k, v in placed.state_dict().items()} == {
        k: v.shape for k, v in named.state_dict().items()}


@pytest.mark.parametrize('block', ['transformer', 'conv'])
def test_zero_init_residual_makes_blocks_identities(block):
    model = HRFormer(SMALL, zero_init_residual=True, block=block)
    model.init_weights()
    assert not model.layer1[0].bn3.weight.any()
    assert model.bn1.weight.all()
    if block == 'conv':
        assert not model.stage2[0].branches[0][0].bn2.weight.any()
    plain = HRFormer(SMALL, block=block)
    plain.init_weights()
    assert plain.layer1[0].bn3.weight.all()


@pytest.mark.parametrize('given, wanted', [
    (-1, (3, )), (0, (0, )), ([-1], (3, )), ((0, -1), (0, 3)),
    ((-2, -1), (2, 3)),
])
def test_out_indices_can_be_negative(given, wanted):
    assert HRFormer(SMALL, out_indices=given).out_indices == wanted


@pytest.mark.parametrize('given', [4, -5, (0, -4), (3, 0), True, 'a', (), 1.])
def test_out_indices_out_of_range_raise(given):
    with pytest.raises(ValueError, match='out_indices must be'):
        HRFormer(SMALL, out_indices=given)


# Layer-wise learning rates


@pytest.mark.parametrize('arch', [
    SMALL, dict(SMALL, blocks=3),
    dict(channels=(8, 16, 32), heads=(1, 2, 2), modules=(1, 2)),
])  # yapf: disable
def test_layer_depth_increases_along_the_network(arch):
    model = HRFormer(arch, out_indices=(0, ))
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.')
              for name, _ in model.named_parameters()}
    layers = {total for _, total in depths.values()}
    last = 2 + sum(model.arch.modules) * model.arch.blocks
    assert layers == {last + 1}
    found = {name: depth for name, (depth, _) in depths.items()}
    assert set(found.values()) == set(range(last))
    assert found['conv1.weight'] == 0 and found['layer1.0.conv1.weight'] == 1
    first = [n for n in found if n.startswith('stage2.0.branches.1.0.')]
    assert {found[n] for n in first} == {2}
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (
        last, last + 1)
    ends = [found[n] for n in found if n.startswith('transition3')]
    before = [found[n] for n in found if n.startswith('stage3')]
    assert not ends or set(ends) == {max(before)}


def test_layer_decay_of_mmpretrain_works():
    pytest.importorskip('mmpretrain')
    from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='hrformer_mm.HRFormer', arch=SMALL,
                          out_indices=-1),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=64)))
        wrapper = LearningRateDecayOptimWrapperConstructor(
            dict(optimizer=dict(type='AdamW', lr=1., weight_decay=.1),
                 type='OptimWrapper'),
            dict(layer_decay_rate=.5))(model)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: g['lr'] for g in wrapper.optimizer.param_groups
             for p in g['params']}
    assert rates['head.fc.weight'] == 1
    assert rates['backbone.conv1.weight'] == min(rates.values())
    assert rates['backbone.layer1.0.conv1.weight'] == 2 * min(rates.values())


# Weights of other backbones


@pytest.mark.parametrize('name', ['open-mmlab://msra/hrnetv2_w18',
                                  'torchvision://resnet50'])
def test_weights_of_the_replaced_backbone_are_ignored(name):
    from hrformer_mm.models import extra
    lines = []
    real, extra.print_log = extra.print_log, lambda text, *_: lines.append(
        text)
    try:
        model = HRFormer(SMALL, pretrained=name)
    finally:
        extra.print_log = real
    assert model.init_cfg is None and 'is ignored' in lines[0]


def test_pretrained_is_used_as_the_checkpoint(tmp_path):
    path = str(tmp_path / 'a.pth')
    model = HRFormer(SMALL)
    torch.save(dict(state_dict=model.state_dict()), path)
    again = HRFormer(SMALL, pretrained=path)
    again.init_weights()
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])
    assert HRFormer(SMALL, pretrained=None).init_cfg is None
    with pytest.raises(ValueError, match='at the same time'):
        HRFormer(SMALL, pretrained=path, init_cfg=dict(type='Pretrained',
                                                       checkpoint=path))
