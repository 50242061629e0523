# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""No model predicts with parameters that its checkpoint does not have."""
import copy
from importlib.util import find_spec

import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from tiny_tasks import task_config
from torch import nn

from hrformer_mm.checkpoints.guard import guard_predictions
from hrformer_mm.checkpoints.loading import load_weights
from hrformer_mm.engine.train import test as run_test
from hrformer_mm.zoo import build_model

# A parameter of each that is not of the backbone.
METHODS = {
    'pose/tokenpose_l-d24_coco_256x192': 'neck',
    'pose/transpose_h-a6_coco_256x192': 'neck',
    'pose/prtr_w32_coco_384x288': 'head',
    'pose/hrnet_w32_coco_256x192': 'head',
    'pose/swin_t_coco_256x192': 'head',
    'pose/deit_b_coco_384x288': 'head',
    'seg/dpt_hybrid_pascal-context_480x480': 'decode_head',
    'seg/pspnet_r101_cityscapes_512x1024': 'decode_head',
    'seg/hrformer_t_cityscapes_512x1024': 'decode_head',
}


def build(name, permit=False):
    """Build a model as tools/test.py guards it, whose forward is a word."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    pytest.importorskip(cfg.default_scope)
    if 'dpt_hybrid' in name:
        pytest.importorskip('timm')
    model = build_model(cfg)
    guard_predictions(model, permit)
    model.forward = lambda *args, **kwargs: 'predicted'
    return model


def without(state, part):
    return {k: v for k, v in state.items() if not k.startswith(f'{part}.')}


@pytest.mark.filterwarnings('ignore:.*no-op')
@pytest.mark.parametrize('name, part', METHODS.items(), ids=list(METHODS))
def test_parameters_missing_from_the_checkpoint_raise(name, part):
    model = build(name)
    whole = model.state_dict()
    assert model(None, mode='predict') == 'predicted'  # nothing was loaded
    model.load_state_dict(without(whole, part), strict=False)
    for candidate in (model, copy.deepcopy(model)):
        with pytest.raises(RuntimeError, match='would be random') as error:
            candidate(None, mode='predict')
        assert f'({part}.' in str(error.value)
        assert 'allow_random_head=True' in str(error.value)
        assert '\n' not in str(error.value)
    assert model(None, mode='tensor') == 'predicted'
    model.load_state_dict(whole)
    assert model(None, mode='predict') == 'predicted'


@pytest.mark.filterwarnings('ignore:.*no-op')
@pytest.mark.parametrize('name', ['pose/deit_b_coco_384x288',
                                  'seg/pspnet_r101_cityscapes_512x1024'])
def test_training_and_the_option_permit_predictions(name):
    model = build(name)
    backbone = without(model.state_dict(), METHODS[name])
    model.load_state_dict(backbone, strict=False)
    model(None, mode='loss')
    assert model(None, mode='predict') == 'predicted'
    model = build(name, permit=True)
    model.load_state_dict(backbone, strict=False)
    assert model(None, mode='predict') == 'predicted'


@pytest.mark.filterwarnings('ignore:.*no-op')
@pytest.mark.parametrize('whole', [False, True])
def test_a_head_alone_completes_a_model_outside_of_tests(whole):
    name = 'pose/hrformer_t_coco_256x192'
    model = build(name) if whole else build_model(
        Config.fromfile(CONFIGS / f'{name}.py'))
    model.forward = lambda *args, **kwargs: 'predicted'
    state = model.state_dict()
    backbone = without(state, 'head')
    model.load_state_dict(backbone, strict=False)
    with pytest.raises(RuntimeError, match=r'\(head\.'):
        model(None, mode='predict')
    model.load_state_dict(without(state, 'backbone'), strict=False)
    if whole:
        with pytest.raises(RuntimeError, match=r'\(backbone\.'):
            model(None, mode='predict')
    else:
        assert model(None, mode='predict') == 'predicted'


@pytest.mark.filterwarnings('ignore:.*no-op')
def test_another_shape_or_network_raises():
    from mmengine.runner.checkpoint import load_state_dict
    model = build('pose/deit_b_coco_384x288')
    name = 'head.final_layer.bias'
    state = dict(model.state_dict(), **{name: torch.zeros(5)})
    load_state_dict(model, state)  # as runners do, which logs it only
    with pytest.raises(RuntimeError, match=rf'for 1 .*\({name}'):
        model(None, mode='predict')
    load_state_dict(model, {'backbone.conv1.weight': torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r'\(backbone\.'):
        model(None, mode='predict')


@pytest.mark.filterwarnings('ignore:.*no-op')
def test_parameters_used_only_in_training_may_be_missing():
    model = build('seg/pspnet_r101_cityscapes_512x1024')
    model.load_state_dict(
        without(model.state_dict(), 'auxiliary_head'), strict=False)
    assert model(None, mode='predict') == 'predicted'


def test_predictions_need_no_auxiliary_head(tmp_path):
    model = nn.ModuleDict(dict(
        backbone=nn.Linear(1, 1), auxiliary_head=nn.Linear(1, 1),
        decode_head=nn.Linear(1, 1)))  # yapf: disable
    path = tmp_path / 'weights.pth'
    torch.save(without(model.state_dict(), 'auxiliary_head'), path)
    assert load_weights(model, path) == {}
    torch.save(without(model.state_dict(), 'decode_head'), path)
    with pytest.raises(ValueError, match='decode_head.weight'):
        load_weights(model, path)


def test_wrapped_models_are_guarded_inside():

    class Averages(BaseTTAModel):

        def merge_preds(self, data_samples_list):
            return data_samples_list

    inner = nn.Linear(2, 2)
    inner.test_step = None
    model = Averages(module=inner)
    guard_predictions(model)
    guard_predictions(model)
    assert len(inner._load_state_dict_post_hooks) == 1
    guard_predictions(dict(type='NotBuilt'))


@pytest.mark.skipif(not find_spec('mmpretrain'), reason='needs MMPretrain')
def test_a_test_of_the_frameworks_model_fails_without_its_head(tmp_path):
    cfg = task_config('cls', tmp_path)
    cfg.model = dict(
        type='ImageClassifier',
        data_preprocessor=cfg.model.data_preprocessor,
        backbone=dict(type='ResNet', depth=18),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=512))
    whole = build_model(cfg, 'cpu').state_dict()
    checkpoint = str(tmp_path / 'backbone.pth')
    torch.save(without(whole, 'head'), checkpoint)
    with pytest.raises(RuntimeError, match=r'2 parameters .*\(head.fc'):
        run_test(copy.deepcopy(cfg), checkpoint)
    cfg.allow_random_head, cfg.experiment_name = True, 'permitted'
    assert run_test(cfg, checkpoint)
