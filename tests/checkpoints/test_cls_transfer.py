# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Backbones trained for classification initialize the other tasks."""
import re

import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from hrformer_mm.checkpoints import loading

CONFIG_FILES = {
    'pose/hrformer_s_coco_256x192.py': {},
    'seg/hrformer_s_cityscapes_512x1024.py': {},
    'seg/hrformer_s_ade20k_520x520.py': dict(window_size=15),
}


def build(config):
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """As the Runner saves one of HRFormer-S after training on ImageNet."""
    model = MODELS.build(build('cls/hrformer_s_imagenet_224.py').model)
    torch.manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    path = tmp_path_factory.mktemp('cls') / 'epoch_300.pth'
    torch.save(dict(meta=dict(epoch=300), state_dict=model.state_dict()), path)
    return path


@pytest.mark.parametrize('config', CONFIG_FILES)
def test_cls_checkpoint_initializes_other_tasks(config, checkpoint,
                                                monkeypatch):
    lines = []
    monkeypatch.setattr(loading, 'print_log',
                        lambda text, *args: lines.append(text))
    cfg = build(config)
    assert cfg.model.backbone.init_cfg.type == 'Pretrained'
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    cfg.model.backbone.update(CONFIG_FILES[config])
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()

    given = torch.load(checkpoint, weights_only=True)['state_dict']
    own = backbone.state_dict()
    differ = [name for name, tensor in own.items()
              if tensor.shape != given[f'backbone.{name}'].shape
              or not torch.equal(tensor, given[f'backbone.{name}'])]
    tables = [name for name in own if name.endswith('bias_table')]
    assert differ == (tables if 'window_size' in CONFIG_FILES[config] else [])

    assert len(lines) == 1 and '\n' not in lines[0]
    words = {word: int(number) for number, word in re.findall(
        r'(\d+) (?:tensors )?(\w+)', lines[0].partition(':')[2])}
    head = [k for k in given if not k.startswith('backbone.')]
    assert words['matched'] == len(own)
    assert words.get('interpolated', 0) == len(differ)
    assert words['dropped'] >= len(head)
    assert not words.get('missing') and not words.get('unexpected')
