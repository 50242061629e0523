# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Misspelt names are answered with the nearest valid ones."""
import pytest
from mmengine.registry import (
    HOOKS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    DefaultScope,
    Registry,
)
from torch import nn

import hrformer_mm  # noqa: F401
from hrformer_mm.utils.suggest import did_you_mean, near_names

OWN = Registry('own', scope='mmengine')


@OWN.register_module()
class Base:

    def __init__(self, height: int, *, width: int = 1):
        pass


@OWN.register_module()
class Middle(Base):

    def __init__(self, depth: int = 1, **kwargs):
        super().__init__(**kwargs)


@OWN.register_module()
class Last(Middle):
    """Inherits its constructor."""


def answer(build) -> str:
    with pytest.raises((TypeError, KeyError)) as caught:
        build()
    return near_names(caught.value)


@pytest.mark.parametrize('registry, cfg, suggested', [
    (MODELS, dict(type='hrformer_mm.HRFormer', archh='base'), 'arch'),
    (MODELS, dict(type='hrformer_mm.HRFormr'), 'hrformer_mm.HRFormer'),
    (HOOKS, dict(type='CheckpontHook'), 'CheckpointHook'),
    (HOOKS, dict(type='LoggerHook', intervals=1), 'interval'),
    (OPTIMIZERS, dict(type='AdamW', params=[nn.Parameter()], weightdecay=1),
     'weight_decay'),
    (METRICS, dict(type='DumpResults', out_file='a.pkl'), 'out_file_path'),
])
def test_the_nearest_name_of_a_part_is_suggested(registry, cfg, suggested):
    assert repr(suggested) in answer(lambda: registry.build(cfg))


@pytest.mark.parametrize('scope, registry, cfg, suggested', [
    ('mmpose', 'DATASETS', dict(type='CocoDataset', ann_flie='a.json'),
     'ann_file'),
    ('mmpose', 'MODELS', dict(type='TopDownPoseEstimator'),
     'TopdownPoseEstimator'),
    ('mmpose', 'TRANSFORMS', dict(type='RandomFlip', probb=1), 'prob'),
    ('mmseg', 'DATASETS', dict(type='CityscapesDataset', img_sufix='.png'),
     'img_suffix'),
    ('mmseg', 'DATASETS', dict(type='CityscapesDataset', data_rot='x'),
     'data_root'),
    ('mmpretrain', 'MODELS', dict(type='mmpretrain.ResNet', depht=18),
     'depth'),
])
def test_frameworks_are_searched_in_their_own_scope(scope, registry, cfg,
                                                    suggested):
    framework = pytest.importorskip(f'{scope}.registry')
    pytest.importorskip(f'{scope}.datasets')
    pytest.importorskip(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope):
        found = answer(lambda: getattr(framework, registry).build(cfg))
    assert repr(suggested) in found


@pytest.mark.parametrize('name', ['Middle', 'Last'])
@pytest.mark.parametrize('word, suggested', [
    ('heigth', 'height'), ('widht', 'width'), ('deepth', 'depth')])
def test_arguments_that_pass_through_a_constructor_are_suggested(
        name, word, suggested, monkeypatch):
    monkeypatch.setattr('mmengine.registry.OWN', OWN, raising=False)
    found = answer(lambda: OWN.build({'type': name, word: 1}))
    assert repr(suggested) in found


def test_nothing_is_suggested_where_no_name_is_near():
    assert did_you_mean('zzz', ['arch', 'extra']) == ''
    assert near_names(TypeError('unsupported operand')) == ''
    assert near_names(ValueError('a is not in the b registry')) == ''
    assert near_names(KeyError('x is not in the nowhere::y registry')) == ''
    assert near_names(KeyError()) == near_names(KeyError(3)) == ''


def test_suggestions_are_ordered_by_likeness():
    assert did_you_mean('hight', {'height', 'light'}) == (
        ". Did you mean 'height' or 'light'?")
    assert did_you_mean('arch', ['arch_']) == ". Did you mean 'arch_'?"


def test_local_variables_of_others_are_not_read():
    """A frame that is called as mmengine's builder has no influence."""

    def build_from_cfg():
        obj_cls, obj_type, registry = Base, 'Base', OWN  # noqa: F841
        raise TypeError("f() got an unexpected keyword argument 'heigth'")

    assert answer(build_from_cfg) == ''
