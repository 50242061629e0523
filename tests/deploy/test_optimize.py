# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Networks optimized for inference, against what they were made from."""
import pytest
import torch
from helpers import NEEDS_FLOAT16
from torch import nn

from hrformer_mm.core import HRFormer
from hrformer_mm.core.attention import Attention
from hrformer_mm.core.cls_head import RepresentationHead
from hrformer_mm.core.ocr import OCR
from hrformer_mm.deploy import optimize
from hrformer_mm.deploy.optimize import BatchNorm, fold_batch_norm


def trained(model: nn.Module) -> nn.Module:
    """The model with statistics and affine terms that are not the initial."""
    generator = torch.Generator().manual_seed(0)
    for m in model.modules():
        if isinstance(m, BatchNorm):
            for value in (m.running_var, m.weight.data):
                value.uniform_(0.5, 1.5, generator=generator)
            for value in (m.running_mean, m.bias.data):
                value.normal_(0, 0.2, generator=generator)
    return model.eval()


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


class Segmenter(nn.Module):
    """Named as OpenMMLab names the networks of a model."""

    def __init__(self):
        super().__init__()
        self.backbone = HRFormer('tiny')
        self.decode_head = OCR(
            self.backbone.out_channels, 5, channels=32, ocr_channels=16)

    def forward(self, x):
        # As heads of OpenMMLab do: the head calls its own forward.
        return self.decode_head.forward(self.backbone(x))[0]


@pytest.fixture(scope='module')
def segmenter() -> nn.Module:
    torch.manual_seed(0)
    return trained(Segmenter())


@pytest.fixture(scope='module')
def images() -> torch.Tensor:
    return torch.randn(2, 3, 70, 64)


@torch.no_grad()
def test_an_optimized_network_returns_the_same_outputs(segmenter, images):
    assert relative(optimize(segmenter)(images), segmenter(images)) < 1e-5


@pytest.mark.parametrize('dtype, tolerance', [
    (torch.bfloat16, 0.05),
    pytest.param(torch.float16, 0.01, marks=NEEDS_FLOAT16)])
@torch.no_grad()
def test_half_precision_stays_close_and_returns_float32(
        segmenter, images, dtype, tolerance):
    model = optimize(segmenter, dtype)
    y = model(images)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert y.dtype == torch.float32
    assert relative(y, segmenter(images)) < tolerance


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_network_returns_the_same_outputs(segmenter, images):
    model = optimize(segmenter, compile=True, fullgraph=True)
    assert relative(model(images), segmenter(images)) < 1e-5


@torch.no_grad()
def test_every_batch_norm_is_folded_and_every_bias_is_constant(segmenter):
    model = optimize(segmenter)
    assert not [m for m in model.modules() if isinstance(m, BatchNorm)]
    for m in model.modules():
        if isinstance(m, Attention):
            assert m.fixed_bias is not None
            assert m.bias().data_ptr() == m.fixed_bias.data_ptr()
    assert not any(p.requires_grad for p in model.parameters())


def test_the_model_that_is_optimized_is_not_changed(segmenter):
    before = {k: v.clone() for k, v in segmenter.state_dict().items()}
    optimize(segmenter, torch.bfloat16)
    after = segmenter.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert all(p.requires_grad for p in segmenter.parameters())


@torch.no_grad()
def test_the_classification_head_is_folded_too():
    torch.manual_seed(0)
    head = trained(RepresentationHead((8, 16, 32, 64)))
    maps = [torch.randn(2, c, 64 // c, 64 // c) for c in (8, 16, 32, 64)]
    y = head(maps)
    assert fold_batch_norm(head) == 3 * 4 + 4 + 2 * 3 + 1
    assert relative(head(maps), y) < 1e-5


@torch.no_grad()
def test_a_norm_that_does_not_follow_a_convolution_stays():
    model = nn.Sequential(
        nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    assert fold_batch_norm(model.eval()) == 0


def test_an_unknown_precision_is_rejected(segmenter):
    with pytest.raises(ValueError, match='bfloat16'):
        optimize(segmenter, torch.int8)
