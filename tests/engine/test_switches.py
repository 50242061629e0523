# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Each one-line switch of training is really on when it is given.

``compile`` is tested with the Runner in test_distributed.py.
"""
import re
from contextlib import nullcontext

import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from hrformer_mm.core.checkpointing import recompute
from hrformer_mm.engine.train import merge_options


def small_config(**options) -> Config:
    cfg = Config.fromfile(CONFIGS / 'pose/hrformer_s_coco_256x192.py')
    merge_options(cfg, options)
    return cfg


def calls_of_a_step(cfg: Config, pattern: str) -> int:
    """How often modules so called run in a forward and backward pass."""
    from hrformer_mm.registry import MODELS
    init_default_scope('mmpose')
    backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=None,
                                 arch='tiny'))  # yapf: disable
    modules = [
        m for name, m in backbone.named_modules() if re.search(pattern, name)
    ]
    calls = []
    for module in modules:
        module.register_forward_hook(lambda *_: calls.append(1))
    sum(y.mean() for y in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert len(calls) % len(modules) == 0
    return len(calls) // len(modules)


@pytest.mark.parametrize('level, norms, attention', [(False, 1, 1),
                                                     ('ffn', 2, 1),
                                                     (True, 2, 2)])
def test_checkpointing_recomputes_according_to_its_level(
        level, norms, attention):
    """The first norm stands for the feed-forward and for the attention."""
    cfg = small_config(**{'model.backbone.with_cp': level})
    assert calls_of_a_step(cfg, r'ffn\.norm1$') == norms
    assert calls_of_a_step(cfg, r'\d\.norm1$') == attention


@pytest.mark.parametrize('name', ['bfloat16', 'float16'])
def test_training_uses_the_requested_precision(name, monkeypatch):
    """Where there is a GPU; its autocast is entered on this machine."""
    from mmengine.optim import build_optim_wrapper
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper.'
    monkeypatch.setattr(module + 'is_cuda_available', lambda: True)
    monkeypatch.setattr('hrformer_mm.engine.optim.supports_amp', lambda: True)
    init_default_scope('mmpose')
    cfg = small_config(**{'optim_wrapper.dtype': name})
    model = torch.nn.Linear(2, 2)
    wrapper = build_optim_wrapper(
        model, dict(cfg.optim_wrapper, paramwise_cfg=None))
    seen = []

    def autocast(**kwargs):
        seen.append(kwargs['dtype'])
        return nullcontext()

    monkeypatch.setattr('mmengine.runner.amp.autocast', autocast)
    with wrapper.optim_context(model):
        pass
    assert seen == [getattr(torch, name)]


def test_recomputing_counts_a_batch_once_in_pytorchs_synchronised_norm():
    norm = torch.nn.SyncBatchNorm(3)  # refuses a count that is None
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    recompute(norm, norm, x, when=True).sum().backward()
    plain = torch.nn.BatchNorm2d(3)
    plain(x)
    for name, value in plain.state_dict().items():
        assert torch.equal(norm.state_dict()[name], value), name
