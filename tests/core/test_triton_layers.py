# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Fused norms, activations, convolutions and blocks against the plain path."""
import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from triton_runs import (
    DEVICE,
    assert_no_worse,
    assert_same,
    make_biases_matter,
    relative_error,
    round_like_hardware,
    skip_if_unavailable,
)

from hrformer_mm.core import HRFormer
from hrformer_mm.core.blocks import FFN, Block, DropPath, basic_block
from hrformer_mm.core.hrformer import Fusion, TransformerBranch
from hrformer_mm.core.kernels import set_kernels
from hrformer_mm.core.kernels import triton as dispatch
from hrformer_mm.deploy.optimize import optimize

skip_if_unavailable()


@pytest.fixture(autouse=True)
def calls(monkeypatch) -> dict:
    """Count the calls of operators."""
    counts: dict = {}

    def count(name):
        operator = getattr(dispatch.ops, name)

        def counted(*args):
            counts[name] = counts.get(name, 0) + 1
            return operator(*args)

        monkeypatch.setattr(dispatch.ops, name, counted)

    for name in ('window_attention', 'batch_statistics', 'norm_gelu',
                 'add_norm', 'gelu_add_norm', 'depthwise', 'fuse'):
        count(name)
    return counts


def build(dim: int = 10, window: int = 2, seed: int = 0, **options) -> Block:
    torch.manual_seed(seed)
    block = Block(dim, 2, mlp_ratio=2, window_size=window, **options)
    make_biases_matter(block)
    return block.to(DEVICE)


TRAINING = dict(
    window_attention=1, batch_statistics=3, norm_gelu=3, add_norm=1)
INFERENCE = dict(window_attention=1, norm_gelu=1, add_norm=1, depthwise=1)


def test_training_step_of_a_block_equals_the_plain_path(calls):
    """Outputs, all gradients, running statistics, drop path."""
    x = torch.randn(2, 2, 3, 10, device=DEVICE)
    assert_same(build(drop_path=.5), x, seed=3)
    assert calls == TRAINING


def test_inference_of_a_block_equals_the_plain_path(calls):
    block = build().eval()
    x = torch.randn(1, 2, 3, 10, device=DEVICE)
    with torch.no_grad():
        expected = block(x)
        set_kernels(block, 'triton')
        assert relative_error(block(x), expected) < 1e-6
    assert calls == INFERENCE


@pytest.mark.parametrize('folded', [False, True])
def test_inference_fuses_the_end_of_a_block_with_the_next_norm(folded, calls):
    torch.manual_seed(0)
    branch = TransformerBranch(*(build(window=3) for _ in range(2))).eval()
    branch = optimize(branch) if folded else branch
    x = torch.randn(1, 10, 2, 3, device=DEVICE)
    with torch.no_grad():
        expected = branch(x)
        set_kernels(branch, 'triton')
        assert relative_error(branch(x), expected) < 1e-6
    assert calls == dict(window_attention=2, norm_gelu=1, add_norm=2,
                         gelu_add_norm=1, depthwise=2)


@pytest.mark.parametrize('change', [
    lambda block: block.norm1.register_forward_hook(lambda *args: None),
    lambda block: block.ffn.act3.register_forward_hook(lambda *args: None),
    lambda block: block.register_forward_hook(lambda *args: None),
], ids=['norm', 'activation', 'block'])
def test_ends_of_blocks_are_not_fused_with_layers_that_have_hooks(
        change, calls):
    branch = TransformerBranch(build(dim=4), build(dim=4)).eval()
    for block in branch:
        change(block)
    set_kernels(branch, 'triton')
    with torch.no_grad():
        branch(torch.randn(1, 4, 2, 2, device=DEVICE))
    assert 'gelu_add_norm' not in calls and calls['window_attention'] == 2


def test_shortcut_and_relu_are_one_kernel(calls):
    torch.manual_seed(0)
    block = basic_block(5).to(DEVICE).eval()
    x = torch.randn(2, 5, 3, 4, device=DEVICE)
    with torch.no_grad():
        expected = block(x)
        set_kernels(block, 'triton')
        assert relative_error(block(x), expected) < 1e-6
    assert calls == dict(fuse=1)


@pytest.mark.slow
@pytest.mark.parametrize('ffn', ['dwconv', 'nodw', 'mlp'])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('dim', [18, 78])
def test_all_blocks_equal_the_plain_path(ffn, training, dim):
    block = build(dim, 3, ffn=ffn, shift=1, mask_padding=True).train(training)
    assert_same(block, torch.randn(2, 5, 4, dim, device=DEVICE))


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('training', [True, False])
def test_half_precision_blocks_are_no_worse_than_the_plain_path(
        dtype, training, monkeypatch):
    round_like_hardware(monkeypatch)

    def draw(seed):
        block = build(18, 3, seed=seed).train(training)
        return block, torch.randn(3, 5, 4, 18, device=DEVICE)

    assert_no_worse(draw, dtype)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(1, 1, 2, 18), (2, 33, 17, 40),
                                   (3, 7, 90, 130)], ids=str)
def test_statistics_are_as_exact_as_pytorchs(shape):
    """Means of a hundred deviations, many tiles, widths of several tiles."""
    torch.manual_seed(0)
    x = torch.randn(shape, device=DEVICE) + 100
    norm = nn.BatchNorm2d(shape[-1], momentum=.3).to(DEVICE)
    expected = copy.deepcopy(norm).double()
    expected(x.double().permute(0, 3, 1, 2))
    mean, var = dispatch.ops.batch_statistics(
        x, norm.running_mean, norm.running_var, norm.num_batches_tracked,
        norm.momentum)
    assert relative_error(mean, x.double().mean((0, 1, 2))) < 1e-6
    assert relative_error(
        var, x.double().var((0, 1, 2), unbiased=False)) < 1e-5
    assert relative_error(norm.running_mean, expected.running_mean) < 1e-6
    assert relative_error(norm.running_var, expected.running_var) < 1e-5
    assert norm.num_batches_tracked == 1


@pytest.mark.slow
@pytest.mark.parametrize('folded', [False, True])
@pytest.mark.parametrize('size', [(1, 1), (17, 5), (3, 40), (34, 2)], ids=str)
def test_depthwise_layers_of_all_sizes_equal_the_plain_path(
        folded, size, calls):
    """Heights and widths of several programs, with parts."""
    torch.manual_seed(0)
    block = build(18).eval()
    if folded:
        block.ffn = optimize(block.ffn)
    x = torch.randn(2, *size, 18, device=DEVICE)
    with torch.no_grad():
        expected = block(x)
        set_kernels(block, 'triton')
        assert relative_error(block(x), expected) < 1e-6
    assert calls['depthwise'] == 1


def test_hooks_and_other_layers_are_called(calls):
    """The layer is called, and the others remain fused."""
    seen = []
    block = build(dim=4)
    for layer in (block.ffn.norm1, block.ffn.act2, block.norm2):
        layer.register_forward_hook(lambda *args: seen.append(args[0]))
    block.ffn.norm3 = nn.InstanceNorm2d(4)
    set_kernels(block, 'triton')
    block(torch.randn(1, 2, 2, 4, device=DEVICE))
    assert seen == [block.norm2, block.ffn.norm1, block.ffn.act2]
    assert set(calls) == {'window_attention'}


@pytest.mark.parametrize('change', [
    lambda block: block.register_forward_hook(lambda *args: None),
    lambda block: block.drop_path.register_forward_hook(lambda *args: None),
    lambda block: setattr(block, 'with_cp', 'ffn'),
    lambda block: set_kernels(block, 'plain'),
], ids=['hook', 'hook of drop path', 'checkpointing', 'plain'])
def test_blocks_that_are_not_covered_are_plain(change, calls):
    block = build(dim=4)
    set_kernels(block, 'triton')
    change(block)
    x = torch.randn(1, 2, 2, 4, device=DEVICE)
    block(x)
    assert set(calls) <= {'window_attention'}


@pytest.mark.parametrize('options', [
    dict(padding=2, dilation=2, groups=4), dict(padding=1),
    dict(padding=1, groups=4, padding_mode='reflect')],
    ids=['dilated', 'dense', 'reflected'])  # yapf: disable
def test_other_convolutions_in_place_of_the_depthwise_one_are_called(
        options, calls):
    block = build(dim=2).eval().requires_grad_(False)
    block.ffn.dw3x3 = nn.Conv2d(4, 4, 3, **options).to(DEVICE)
    x = torch.randn(1, 3, 3, 2, device=DEVICE)
    with torch.no_grad():
        expected = block(x)
        set_kernels(block, 'triton')
        assert relative_error(block(x), expected) < 1e-5
    assert 'depthwise' not in calls and calls['norm_gelu'] == 3


def test_drop_path_of_a_layer_and_of_a_fused_block_draw_the_same():
    layer = DropPath(.3).train()
    x = torch.ones(64, 1, 1, 2)
    torch.manual_seed(0)
    expected = layer(x)
    torch.manual_seed(0)
    factor = layer.factor(x)
    assert torch.equal(expected, x * factor) and len(factor.unique()) == 2


@pytest.mark.slow
@pytest.mark.parametrize('name', [
    'batch_statistics', 'norm_gelu', 'add_norm', 'gelu_add_norm',
    'depthwise'])
def test_operators_are_registered_completely(name):
    x, y = torch.randn(2, 1, 2, 3, 5, device=DEVICE).requires_grad_().unbind()
    values = torch.rand(4, 5, device=DEVICE)
    mean, var, weight, bias = values.unbind()
    factor, count = torch.rand(1, device=DEVICE), torch.tensor(1)
    arguments = dict(
        batch_statistics=(x.detach(), mean, var, count.to(DEVICE), .1),
        norm_gelu=(x, mean, var, weight.requires_grad_(),
                   bias.requires_grad_(), 1e-5, y, factor, False),
        add_norm=(x, y, factor, weight, bias, 1e-6, torch.float32),
        gelu_add_norm=(x.detach(), y.detach(), [mean, var, weight, bias], 1e-5,
                       weight, bias, 1e-6, torch.float32),
        depthwise=(x.detach(), torch.rand(5, 1, 3, 3, device=DEVICE), None,
                   [mean, var, weight, bias], 1e-5, [], 0.))
    tests = ['test_schema', 'test_faketensor']
    if name in ('norm_gelu', 'add_norm'):
        tests.append('test_autograd_registration')
    torch.library.opcheck(
        getattr(torch.ops.hrformer_mm, name).default,
        tuple(
            v.detach().requires_grad_(v.requires_grad)
            if isinstance(v, torch.Tensor) else v for v in arguments[name]),
        test_utils=tests)


@pytest.mark.slow
def test_ffn_without_a_batch_is_refused_as_by_pytorch():
    ffn = FFN(4, 8)
    block = build(dim=4)
    block.ffn = ffn
    set_kernels(block, 'triton')
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        block(torch.randn(1, 1, 1, 4))


@pytest.mark.parametrize('upsample', ['nearest', 'bilinear'])
@pytest.mark.parametrize('dst', [0, 2])
def test_fusion_equals_the_plain_path(upsample, dst, calls):
    """Finest output, and one with finer and coarser branches."""
    torch.manual_seed(0)
    fusion = Fusion((3, 4, 5, 6), (dst, ), upsample, True).to(DEVICE).eval()
    xs = [
        torch.randn(2, c, 16 // 2**i, 8 // 2**i, device=DEVICE)
        for i, c in enumerate((3, 4, 5, 6))
    ]
    with torch.no_grad():
        expected, = fusion(xs)
        set_kernels(fusion, 'triton')
        found, = fusion(xs)
    assert relative_error(found, expected) < 1e-6
    assert calls == dict(fuse=1)
    fusion([x[:, :, :1] for x in xs] if dst == 0 else xs)  # with gradients
    assert calls == dict(fuse=1)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_kernels_compile_for_an_h100(dtype, tmp_path):
    """Down to machine code, which needs no GPU."""
    env = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    program = Path(__file__).parents[1] / 'triton_compile.py'
    run = subprocess.run(
        [sys.executable, program, dtype], capture_output=True, text=True,
        env=dict(env, TRITON_CACHE_DIR=str(tmp_path)))
    assert run.returncode == 0, run.stderr
    kernels = {line.split()[0] for line in run.stdout.splitlines()}
    assert len(kernels) == 15, kernels


ARCH = dict(
    channels=(4, 6, 8, 10), heads=(1, 2, 2, 2), modules=(1, 1, 1), blocks=1,
    mlp_ratio=2)


@pytest.mark.slow
@pytest.mark.parametrize('training', [True, False])
def test_whole_model_equals_the_plain_path(training, calls):
    torch.manual_seed(0)
    model = HRFormer(
        ARCH, window_size=3, drop_path_rate=.3, attention='shifted',
        kernels='triton').to(DEVICE).train(training)

    class Sum(nn.Module):
        """One output of all maps."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return torch.cat([y.flatten() for y in self.model(x)])

    assert_same(Sum(), torch.rand(2, 3, 40, 33, device=DEVICE))
    assert calls['window_attention'] == 9


@pytest.mark.slow
def test_optimized_model_equals_the_plain_path(calls):
    torch.manual_seed(0)
    model = HRFormer(ARCH, window_size=3).to(DEVICE).eval()
    x = torch.rand(1, 3, 40, 33, device=DEVICE)
    with torch.no_grad():
        expected = model(x)
        found = optimize(model, kernels='triton')(x)
    for a, b in zip(found, expected):
        assert relative_error(a, b) < 1e-5
    assert calls['depthwise'] == 9
