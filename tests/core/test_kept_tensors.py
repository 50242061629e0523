# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Folded norms, padded weights and gathered biases are never out of date."""
import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrize
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from hrformer_mm.core import HRFormer
from hrformer_mm.core.attention import WindowAttention
from hrformer_mm.core.blocks import Block, bottleneck, conv_bn_relu
from hrformer_mm.core.kernels import kept
from hrformer_mm.deploy import optimize

pytestmark = pytest.mark.usefixtures('gpu_path')
ARCH = dict(channels=(6, 8, 8, 8), heads=(2, 2, 2, 2), modules=(1, 1, 1),
            blocks=1)  # yapf: disable


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            low = -.5 if value.ndim > 1 else .2
            value.uniform_(low, 1., generator=generator)
    return model


@pytest.fixture
def block() -> nn.Module:
    """Return a block whose heads of 3 channels are padded to 8."""
    return randomize(Block(6, 2, window_size=3)).eval()


X = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def infer(model: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


def assert_up_to_date(model: nn.Module, x: torch.Tensor = X):
    """Compare inference with a pass that needs gradients and keeps nothing."""
    assert_close(infer(model, x), model(x).detach(), rtol=2e-6, atol=2e-6)


def test_inference_keeps_tensors_and_computes_what_the_layers_compute():
    model = randomize(HRFormer(ARCH, window_size=3)).eval()
    x = torch.randn(1, 3, 40, 32)
    maps = infer(model, x)
    assert len(kept.KEPT) > 20
    again = infer(model, x)
    for a, b, c in zip(maps, again, model(x)):
        assert torch.equal(a, b)
        assert ((a - c).norm() / c.norm()).item() <= 1e-6
    model.train()
    assert not any(p in kept.KEPT for p in model.parameters())


def load(model: nn.Module):
    model.load_state_dict(randomize(copy.deepcopy(model), 1).state_dict())


def assign(model: nn.Module):
    model.load_state_dict(
        randomize(copy.deepcopy(model), 1).state_dict(), assign=True)


def step(model: nn.Module):
    optimizer = torch.optim.AdamW(model.parameters(), lr=.1)
    model(X).square().sum().backward()
    optimizer.step()


def replace_data(model: nn.Module):
    for p in model.parameters():
        p.data = p.data + .1


def swap_data(model: nn.Module):
    """Change values as MMEngine's EMA hook does, before it evaluates."""
    for p in model.parameters():
        p.data.copy_(p.data + .1)
    model.eval()


def train_norms(model: nn.Module):
    """Update the statistics only, with the block in eval mode."""
    model.ffn.norm1.train()
    infer(model, X + 1)
    model.ffn.norm1.eval()


def initialize(model: nn.Module):
    for p in model.parameters():
        nn.init.uniform_(p, .1, .2)


CHANGES = (load, assign, step, replace_data, swap_data, train_norms,
           initialize)


@pytest.mark.parametrize('change', CHANGES, ids=lambda f: f.__name__)
def test_changed_parameters_take_effect(block, change):
    before = infer(block)
    change(block)
    assert not torch.allclose(infer(block), before)
    assert_up_to_date(block)


def test_a_copy_has_its_own_tensors(block):
    infer(block)
    twin = copy.deepcopy(block)
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(1.5)
    assert_up_to_date(twin)
    assert_up_to_date(block)


def test_another_precision_takes_effect(block):
    infer(block)
    exact = infer(block.double(), X.double())
    assert exact.dtype == torch.float64
    assert_close(exact, block(X.double()).detach(), rtol=1e-13, atol=1e-13)


def test_gradients_of_inputs_follow_inference_mode(block):
    block.requires_grad_(False)
    with torch.inference_mode():
        block(X)
    x = X.clone().requires_grad_()
    block(x).sum().backward()
    assert x.grad.isfinite().all()


def test_parametrized_layers_are_called(block):

    class Double(nn.Module):

        def forward(self, x):
            return 2 * x

    infer(block)
    for layer in (block.ffn.fc1, block.attn.attn.qkv):
        parametrize.register_parametrization(layer, 'weight', Double())
    assert_up_to_date(block)


def test_pretended_tensors_are_not_kept_for_real_parameters(block):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        infer(block, mode.from_tensor(X))
    assert_up_to_date(block)


def test_functions_of_the_weights_keep_nothing(block):
    infer(block)
    weights = {k: v + .1 for k, v in block.named_parameters()}
    both = {k: torch.stack([v, 2 * v]) for k, v in weights.items()}
    with torch.no_grad():
        found = torch.func.vmap(
            lambda w: torch.func.functional_call(block, w, (X, )))(both)
        alone = torch.func.functional_call(block, weights, (X, ))
    assert_close(found[0], alone, rtol=1e-5, atol=1e-5)
    assert_up_to_date(block)


@pytest.mark.parametrize('options', [
    dict(), dict(shift=2), dict(mask_padding=True),
    dict(shift=1, mask_padding=True), dict(rel_pos_bias=False)
], ids=str)
def test_windows_of_all_maps_equal_those_of_the_plain_path(options):
    layer = randomize(WindowAttention(6, 2, 4, **options)).eval()
    for hw in ((4, 4), (5, 9), (3, 2), (8, 7), (5, 9)):
        assert_up_to_date(layer, torch.randn(2, *hw, 6))


class Operations(TorchDispatchMode):
    """Record the names of operations and the tensors they read."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append((func._schema.name.split('::')[1], args))
        return func(*args, **(kwargs or {}))

    def count(self, name: str) -> int:
        return sum(found == name for found, _ in self.calls)


@pytest.mark.parametrize('folded', [False, True], ids=['norms', 'folded'])
@pytest.mark.parametrize('build, expected', [
    (lambda: conv_bn_relu(8, 6, 1), dict(_addmm_activation=1)),
    (lambda: bottleneck(64), dict(_addmm_activation=1, addmm_=1, add_=0)),
    (lambda: bottleneck(256), dict(_addmm_activation=1, addmm_=0, add_=1)),
], ids=['layers', 'projection', 'identity'])
def test_products_include_bias_relu_and_projected_shortcut(
        build, expected, folded):
    model = randomize(build()).eval()
    for norm in (m for m in model.modules() if hasattr(m, 'running_var')):
        norm.weight.data -= .7  # so that ReLU matters
    x = torch.randn(2, next(model.parameters()).shape[1], 3, 4)
    x = x.to(memory_format=torch.channels_last)
    exact = model.double()(x.double()).detach()
    model = optimize(model.float()) if folded else model.float()
    with Operations() as found:
        y = infer(model, x)
    assert {name: found.count(name) for name in expected} == expected
    assert ((y - exact).norm() / exact.norm()).item() < 1e-6
    assert 0 < (y == 0).float().mean() < 1


def test_gradients_of_inputs_of_frozen_convolutions_are_computed():
    model = randomize(bottleneck(64)).eval().requires_grad_(False)
    x = torch.randn(1, 64, 2, 2).requires_grad_()
    model(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_weights_are_converted_once_for_autocast(block, dtype):
    block.requires_grad_(False)
    with torch.autocast('cpu', dtype):
        before = infer(block)
    parameters = {id(p) for p in block.parameters()}
    with torch.autocast('cpu', dtype), Operations() as found:
        after = infer(block)
    assert torch.equal(before, after)
    assert not [args for name, args in found.calls
                if name == '_to_copy' and id(args[0]) in parameters]
    with torch.autocast('cpu', dtype):
        plain = block.attn.attn.proj(X)
        layer = block.attn.attn.proj.requires_grad_()
        assert torch.equal(plain, layer(X))
