# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Weights that cover a part of a model, or were trained for another task."""
import copy
import logging

import foreign
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import nn

from hrformer_mm.checkpoints import load_pretrained
from hrformer_mm.models.backbones import HRFormer


class Model(BaseModel):
    """A pose model as the frameworks call it, with heads of our names."""

    def __init__(self, **kwargs):
        super().__init__()
        self.backbone = HRFormer(
            foreign.TINY, out_indices=(0, ), upsample='bilinear', **kwargs)
        self.head = nn.Module()
        self.head.final_layer = nn.Conv2d(foreign.TINY.channels[0], 17, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.head.final_layer(self.backbone(inputs)[0])
        return dict(loss=out.sum()) if mode == 'loss' else out


def weights(layout, **kwargs):
    return foreign.random_tensors(
        foreign.names(layout, foreign.TINY, **kwargs))


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def headless():
    return {k: v for k, v in weights('mmpose').items()
            if not k.startswith('head.')}


def other_head():
    return {k: v[:5] if k.startswith('head.') else v
            for k, v in weights('mmpose').items()}


@pytest.mark.parametrize('tensors', [
    headless, lambda: weights('official-cls'), other_head])
def test_a_model_with_a_random_head_does_not_predict(tensors):
    model, x = Model().eval(), torch.rand(1, 3, 64, 48)
    found = tensors()
    try:
        model.load_state_dict(found, strict=False)
    except RuntimeError:  # torch, about the shape of the head
        assert tensors is other_head
    for candidate in (model, copy.deepcopy(model)):
        with pytest.raises(RuntimeError, match='head.final_layer') as error:
            candidate(x, mode='predict')
        assert '\n' not in str(error.value)
        assert 'allow_random_head=True' in str(error.value)
    model(x)  # features and costs need no head


def test_training_or_a_whole_checkpoint_permits_predictions():
    model, x = Model(), torch.rand(1, 3, 64, 48)
    model.load_state_dict(headless(), strict=False)
    model.load_state_dict(weights('mmpose'))
    model(x, None, 'predict')
    model.load_state_dict(headless(), strict=False)
    with pytest.raises(RuntimeError, match='would be random'):
        model(x, None, 'predict')
    model(x, None, 'loss')
    model(x, None, 'predict')


def test_whole_checkpoints_of_any_layout_predict():
    for layout in ('mmpose', 'mmpose-0.x', 'official-pose'):
        model = Model(rel_pos_bias='official' not in layout).eval()
        model.load_state_dict(weights(layout))
        model(torch.rand(1, 3, 64, 48), mode='predict')


def test_a_random_head_can_be_permitted():
    model = Model(allow_random_head=True)
    model.load_state_dict(headless(), strict=False)
    model(torch.rand(1, 3, 64, 48), mode='predict')


# Of the weights, the framework of the model, and whether a contradiction of
# how they fuse is worth a warning.
@pytest.mark.parametrize('layout, scope, warns', [
    ('official-seg', 'mmpose', False), ('official-pose', 'mmseg', False),
    ('official-seg', 'mmseg', True), ('mmpose', 'mmpose', True),
    ('official-cls', 'mmpose', False), ('mmpose', 'mmpretrain', False)])
def test_semantics_of_another_task_are_not_suggested(layout, scope, warns,
                                                     tmp_path, log):
    pose = 'pose' in layout
    torch.save(weights(layout), tmp_path / 'weights.pth')
    with DefaultScope.overwrite_default_scope(scope):
        backbone = HRFormer(foreign.TINY, out_indices=(0, ),
                            upsample='nearest' if pose else 'bilinear')
    load_pretrained(backbone, tmp_path / 'weights.pth')
    warnings = [r for r in log.records if r.levelno == logging.WARNING]
    assert bool(warnings) == warns
