# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The models compute what the authors' code computes with the same weights.

Official state dicts are loaded from a file by mmengine's loader, as testing,
resuming and predicting do it, and computed with the fast paths of CPUs and as
GPUs compute it. Tolerances are those of
``tests/data/golden/README.md``, where they are derived.
"""

import pytest
import torch
from golden import Golden, gradients_of, outputs_of
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import nn

from hrformer_mm import zoo

# One for each task and window size runs by default.
DEFAULT = ('cls_t_200x260', 'pose_t', 'seg_t_w13')
SLOW = ('cls_t', 'cls_s', 'cls_b', 'pose_s', 'pose_s_200x260', 'pose_b',
        'seg_s', 'seg_s_v3', 'seg_b_w15')
FRAMEWORKS = dict(cls='mmpretrain', pose='mmpose', seg='mmseg')


@pytest.fixture(
    scope='module',
    params=[
        *DEFAULT,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)
    ])
def golden(request) -> Golden:
    pytest.importorskip(FRAMEWORKS[request.param.split('_')[0]])
    found = Golden.read(request.param)
    found.meta['task'] = request.param.split('_')[0]
    return found


@pytest.fixture(scope='module')
def loaded(golden, tmp_path_factory) -> nn.Module:
    """The config's model with the official weights, in float32."""
    path = tmp_path_factory.mktemp('golden') / 'official.pth'
    torch.save(golden.state_dict(), path)
    cfg = Config.fromfile(CONFIGS / golden.meta['config'])
    cfg.merge_from_dict(golden.meta['overrides'])
    model = zoo.build_model(cfg, device='cpu').eval()
    load_checkpoint(model, str(path), strict=True)
    path.unlink()
    return model


@pytest.fixture
def model(loaded):
    yield loaded
    loaded.float().zero_grad()


@pytest.mark.parametrize('grad', [False, True])
def test_outputs_equal_those_of_the_authors_code(golden, model, path, grad):
    with torch.set_grad_enabled(grad):
        outputs = outputs_of(model, golden.meta['task'], golden.input())
    golden.assert_outputs_equal(outputs)


@pytest.mark.parametrize('dtype, tolerance', [
    (torch.float64, 1e-6),
    pytest.param(torch.float32, 2e-2, marks=pytest.mark.slow),
])
def test_gradients_equal_those_of_the_authors_code(golden, model, path, dtype,
                                                   tolerance):
    image_grad, grads = gradients_of(model, golden, dtype)
    golden.assert_gradients_equal(image_grad, grads, tolerance)
