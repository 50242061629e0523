# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Fused window attention against the plain path.
"""
import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from triton_runs import (
    DEVICE,
    assert_no_worse,
    assert_same,
    make_biases_matter,
    relative_error,
    round_like_hardware,
    skip_if_unavailable,
)

from hrformer_mm.core.attention import WindowAttention
from hrformer_mm.core.kernels import set_kernels
from hrformer_mm.core.kernels import triton as dispatch

skip_if_unavailable()


def build(d: int = 18, heads: int = 2, seed: int = 0, **options):
    """Build a layer with a bias table and biases that matter."""
    torch.manual_seed(seed)
    module = WindowAttention(d * heads, heads, **options)
    make_biases_matter(module)
    return module.to(DEVICE)


@pytest.fixture(autouse=True)
def count_calls(monkeypatch):
    """Count the calls of the operator, so that no test compares plain paths.
    """
    calls = []
    operator = dispatch.ops.window_attention

    def counted(*args):
        calls.append(args)
        return operator(*args)

    monkeypatch.setattr(dispatch.ops, 'window_attention', counted)
    return calls


def test_window_attention_equals_the_plain_path(count_calls):
    module = build(
        d=5, heads=2, window_size=2, shift=1, mask_padding=True, seed=2)
    assert_same(module, torch.randn(1, 3, 2, 10, device=DEVICE))
    assert len(count_calls) == 1


SIZES = {
    'one window': dict(window_size=7, size=(7, 7)),
    'even padding': dict(window_size=7, size=(8, 9)),
    'no bias': dict(window_size=7, size=(8, 7), rel_pos_bias=False),
    'shifted': dict(window_size=4, size=(9, 6), shift=2),
    'shifted along one axis': dict(window_size=4, size=(3, 9), shift=1),
    'masked padding': dict(window_size=5, size=(7, 4), mask_padding=True),
    'both masks': dict(
        window_size=3, size=(7, 5), shift=1, mask_padding=True),
    'window of one': dict(window_size=1, size=(2, 3)),
    'two blocks of tokens': dict(
        window_size=9, size=(9, 10), shift=4, mask_padding=True, heads=1),
    'window 15': dict(window_size=15, size=(15, 16), heads=1),
    'head of 32': dict(window_size=3, size=(4, 4), d=32),
    'head of 39': dict(window_size=7, size=(7, 9), d=39),
    'head of 64': dict(window_size=2, size=(3, 2), d=64),
}


@pytest.mark.slow
@pytest.mark.parametrize('case', SIZES)
def test_all_windows_heads_and_masks_equal_the_plain_path(case, count_calls):
    options = dict(SIZES[case])
    H, W = options.pop('size')
    module = build(**options)
    channels = module.attn.qkv.in_features
    assert_same(module, torch.randn(2, H, W, channels, device=DEVICE))
    assert len(count_calls) == 1


@pytest.mark.slow
@pytest.mark.parametrize('window', range(1, 16))
def test_every_window_size_equals_the_plain_path(window):
    """One window, without gradients."""
    module = build(heads=1, window_size=window).requires_grad_(False)
    x = torch.randn(1, window, window, 18, device=DEVICE)
    ys = []
    for choice in ('triton', 'plain'):
        set_kernels(module, choice)
        ys.append(module(x))
    assert relative_error(*ys) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('window', [4, 9])
def test_half_precision_is_no_worse_than_the_plain_path(
        dtype, window, monkeypatch):
    round_like_hardware(monkeypatch)

    def draw(seed):
        module = build(heads=1, window_size=window, shift=1, seed=seed)
        return module, torch.randn(1, window + 1, window, 18, device=DEVICE)

    assert_no_worse(draw, dtype)


def small_arguments():
    """Return arguments of the operator: a map of 2x3, windows of 2."""
    shapes = (1, 2, 3, 12), (12, ), (9, 2)
    tensors = (
        torch.randn(s, device=DEVICE, requires_grad=True) for s in shapes)
    return (*tensors, 2, 2, (0, 1), True, .5)


def test_gradients_under_checkpointing_are_the_same():
    grads = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        *tensors, _, _, _, _, _ = arguments = small_arguments()
        run = torch.ops.hrformer_mm.window_attention
        y, _ = checkpoint(
            run, *arguments,
            use_reentrant=False) if checkpointed else run(*arguments)
        grads.append(torch.autograd.grad(y.square().sum(), tensors))
    assert all(map(torch.equal, *grads))


@pytest.mark.slow
def test_operator_is_registered_completely():
    """Schema, fake implementation, autograd and dynamic shapes."""
    torch.library.opcheck(torch.ops.hrformer_mm.window_attention.default,
                          small_arguments())


def test_operations_are_counted_like_the_products_of_windows():
    counter = FlopCounterMode(display=False)
    with counter:
        y, _ = torch.ops.hrformer_mm.window_attention(*small_arguments())
        y.sum().backward()
    by_name = counter.get_flop_counts()['Global']
    counts = {str(name): count for name, count in by_name.items()}
    product = 2 * 2 * 4 * 4 * 4  # 2 windows of 4 tokens, 4 channels
    assert counts == {
        'hrformer_mm.window_attention': 2 * product,
        'hrformer_mm.window_attention_backward': 5 * product
    }


@pytest.mark.parametrize('change', [
    lambda m: m.attn.register_forward_hook(lambda *args: None),
    lambda m: m.attn.qkv.register_forward_hook(lambda *args: None),
    lambda m: m.double(),
    lambda m: set_kernels(m, 'plain'),
    lambda m: set_kernels(m, None),
], ids=['hook', 'hook of a layer', 'float64', 'plain', 'default'])
def test_plain_path_computes_uncovered_cases(change, count_calls):
    module = build(window_size=2)
    set_kernels(module, 'triton')
    change(module)
    module(torch.randn(1, 2, 2, 36).to(module.attn.qkv.weight))
    assert not count_calls


def test_unknown_kernels_are_refused_with_the_valid_choices():
    with pytest.raises(ValueError, match="one of .*'triton'.*'cuda'"):
        set_kernels(torch.nn.Identity(), 'cuda')


@pytest.mark.slow
def test_compiled_layer_has_the_fused_operator_and_no_break(count_calls):
    module = build(d=5, window_size=2, shift=1)
    set_kernels(module, 'triton')
    x = torch.randn(1, 3, 2, 10, device=DEVICE)
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    assert relative_error(compiled(x), module(x)) < 1e-6
