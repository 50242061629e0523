# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Windows and attention against references written out loop by loop."""
import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from hrformer_mm.core.attention import (
    Attention,
    WindowAttention,
    join_windows,
    relative_position_index,
    split_windows,
)
from hrformer_mm.core.kernels import cpu, heads
from hrformer_mm.core.versions import torch_is_at_least

# No, one-sided and two-sided padding of windows of 3 and 4.
SIZES = [(6, 9), (5, 9), (6, 7), (5, 7), (3, 3), (2, 8)]


def dense_attention(module: WindowAttention, x: torch.Tensor) -> torch.Tensor:
    """Compute WindowAttention as one masked softmax over the whole map.

    Every token of the padded map is moved by the shift, given its window, its
    place in it and the side of the wrap-around it is on; a pair of tokens
    attends if those agree.
    """
    B, H, W, C = x.shape
    size, attn = module.window_size, module.attn
    pad_h, pad_w = -H % size, -W % size
    top, left = pad_h // 2, pad_w // 2
    Hp, Wp = H + pad_h, W + pad_w
    shift_h = module.shift if Hp > size else 0
    shift_w = module.shift if Wp > size else 0
    tokens = torch.zeros(B, Hp, Wp, C)
    tokens[:, top:top + H, left:left + W] = x
    cells, inside = [], []
    for i, j in itertools.product(range(Hp), range(Wp)):
        y, z = (i - shift_h) % Hp, (j - shift_w) % Wp
        side = (i < shift_h, j < shift_w)
        cells.append(((y // size, z // size, side), (y % size, z % size)))
        inside.append(top <= i < top + H and left <= j < left + W)
    n = len(cells)
    bias = torch.full((attn.heads, n, n), float('-inf'))
    table = attn.relative_position_bias_table
    for q, k in itertools.product(range(n), range(n)):
        hidden = module.mask_padding and inside[q] and not inside[k]
        if cells[q][0] == cells[k][0] and not hidden:
            (yq, xq), (yk, xk) = cells[q][1], cells[k][1]
            row = (yq - yk + size - 1) * (2 * size - 1) + xq - xk + size - 1
            bias[:, q, k] = 0 if table is None else table[row]
    qkv = attn.qkv(tokens.reshape(B, n, C))
    q, k, v = (
        part.reshape(B, n, attn.heads, C // attn.heads).transpose(1, 2)
        for part in qkv.chunk(3, -1))
    weights = q @ k.transpose(-2, -1) * (C // attn.heads)**-.5 + bias
    out = (weights.softmax(-1) @ v).transpose(1, 2).reshape(B, n, C)
    out = attn.proj(out).reshape(B, Hp, Wp, C)
    return out[:, top:top + H, left:left + W]


@pytest.mark.parametrize('hw', SIZES, ids=str)
@pytest.mark.parametrize('size', [3, 4])
@pytest.mark.parametrize('options', [
    dict(),
    dict(rel_pos_bias=False),
    dict(mask_padding=True),
    dict(shift=1),
    dict(shift=2, mask_padding=True),
],
                         ids=str)
def test_window_attention_equals_dense_masked_attention(hw, size, options):
    module = WindowAttention(8, 2, size, **options)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=.5)
    x = torch.randn(2, *hw, 8)
    # float32 sums in another order
    assert_close(module(x), dense_attention(module, x), rtol=1e-4, atol=1e-5)


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4),
    st.integers(1, 7), st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_joining_windows_undoes_splitting(batch, rows, columns, size, dim):
    x = torch.rand(batch, rows * size, columns * size, dim)
    windows = split_windows(x, size)
    assert windows.shape == (batch * rows * columns, size * size, dim)
    assert torch.equal(join_windows(windows, size, x.shape[1:3]), x)
    assert torch.equal(windows[0], x[0, :size, :size].reshape(-1, dim))


@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 8), st.booleans(),
    st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_attention_keeps_any_map_size_and_stays_finite(
        height, width, size, mask_padding, shift):
    module = WindowAttention(
        4, 2, size, mask_padding=mask_padding, shift=shift % size)
    x = torch.randn(1, height, width, 4, requires_grad=True)
    out = module(x)
    out.sum().backward()
    assert out.shape == x.shape
    assert out.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize('size', [1, 2, 7])
def test_relative_position_index_equals_the_official_formula(size):
    index = relative_position_index(size)
    for q, k in itertools.product(range(size**2), repeat=2):
        dy, dx = q // size - k // size, q % size - k % size
        expected = (dy + size - 1) * (2 * size - 1) + dx + size - 1
        assert index[q, k] == expected


def test_without_bias_equals_a_table_of_zeros():
    x = torch.rand(2, 9, 8)
    plain, zero = Attention(8, 2, 3, False), Attention(8, 2, 3, True)
    zero.load_state_dict(plain.state_dict(), strict=False)
    torch.nn.init.zeros_(zero.relative_position_bias_table)
    assert_close(plain(x), zero(x))


def test_mask_padding_changes_nothing_without_padding():
    module = WindowAttention(8, 2, 4, mask_padding=True)
    x = torch.rand(1, 8, 12, 8)
    masked = module(x)
    module.mask_padding = False
    assert torch.equal(masked, module(x))


@pytest.mark.parametrize('shift, window', [(0, (4, 8)), (2, (2, 6))])
def test_a_pixel_affects_only_its_own_window(shift, window):
    module = WindowAttention(8, 2, 4, shift=shift)
    x = torch.rand(1, 12, 12, 8)
    y = x.clone()
    y[0, 4, 4] = torch.rand(8)
    moved = (module(x) != module(y)).any(-1)[0]
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[slice(*window), slice(*window)] = True
    assert torch.equal(moved, expected)


def outputs_and_gradients(attention, x):
    y = attention(x)
    grads = torch.autograd.grad(y.square().sum(), [x, *attention.parameters()])
    return [y, *grads]


def test_padding_heads_for_a_kernel_does_not_change_the_output(monkeypatch):
    """As on a GPU, where 3 channels a head become 8; to 1e-12, float64."""
    torch.manual_seed(0)
    block = Attention(6, 2, 3, rel_pos_bias=True).double()
    nn.init.normal_(block.relative_position_bias_table)
    x = torch.randn(4, 9, 6, dtype=torch.float64, requires_grad=True)
    plain = outputs_and_gradients(block, x)
    assert heads.head_padding(39, torch.device('cuda')) == 1
    assert heads.head_padding(32, torch.device('cuda')) == 0
    monkeypatch.setattr(heads, 'head_padding', lambda *_: 5)
    padded = outputs_and_gradients(block, x)
    for a, b in zip(plain, padded):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize('bias', [True, False])
def test_the_cpu_matrix_product_equals_a_linear_layer(bias, monkeypatch):
    """Outputs and gradients to 1e-6 of their size, also of strided input."""
    monkeypatch.setattr(cpu, 'FEW_PRODUCTS', 0)
    torch.manual_seed(0)
    layer = nn.Linear(10, 7, bias=bias)
    x = torch.randn(2, 5, 3, 10).transpose(1, 2).requires_grad_()
    wanted = [layer(x)]
    wanted += torch.autograd.grad(wanted[0].square().sum(),
                                  [x, *layer.parameters()])
    got = [cpu.mix_channels(x, layer.weight, layer.bias)]
    assert 'PixelProduct' in got[0].grad_fn.next_functions[0][0].name()
    got += torch.autograd.grad(got[0].square().sum(),
                               [x, *layer.parameters()])
    for a, b in zip(got, wanted):
        assert a.shape == b.shape
        assert (a - b).norm() <= 1e-6 * b.norm()


def test_the_cpu_matrix_product_has_second_derivatives():
    """Those of a linear layer, to 1e-5 of their size."""
    torch.manual_seed(0)
    args = [torch.randn(shape, requires_grad=True)
            for shape in ((6, 4), (3, 4), (3, ))]  # yapf: disable
    seconds = []
    for product in (cpu.PixelProduct.apply, F.linear):
        first = torch.autograd.grad(
            product(*args).pow(3).sum(), args, create_graph=True)
        seconds.append(torch.autograd.grad(
            sum(g.square().sum() for g in first), args))
    for a, b in zip(*seconds):
        assert (a - b).norm() <= 1e-5 * b.norm()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('hw', SIZES)
@pytest.mark.parametrize('size', [3, 4])  # few scores in a window, and many
def test_attention_by_rows_equals_attention_by_windows(size, hw, bias):
    """Outputs, with gradients and without, and gradients; to 1e-12."""
    torch.manual_seed(0)
    layer = WindowAttention(6, 2, size, rel_pos_bias=bias).double()
    for weight in layer.parameters():
        nn.init.normal_(weight)
    x = torch.randn(2, *hw, 6, dtype=torch.float64, requires_grad=True)
    by_rows = outputs_and_gradients(layer, x)
    with torch.no_grad():
        quiet = layer(x)
    calls = []
    layer.attn.register_forward_hook(lambda *_: calls.append(1))
    by_windows = outputs_and_gradients(layer, x)
    assert calls  # a hook sees the windows
    for a, b in zip([quiet, *by_rows], [by_windows[0], *by_windows]):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-12 * b.abs().max()


@pytest.mark.parametrize('size', [3, 4])
def test_attention_in_half_precision_accumulates_in_float32(size):
    """To the rounding of its bfloat16 inputs and outputs, 2**-8 each.

    Products of torch 2.1 round their partial sums, too.
    """
    limit = 2**-6 if torch_is_at_least('2.6') else 2**-5
    torch.manual_seed(0)
    layer = WindowAttention(6, 2, size).eval()
    nn.init.normal_(layer.attn.qkv.weight, std=3)
    half = copy.deepcopy(layer).bfloat16()
    layer.load_state_dict(half.state_dict())  # the same rounded weights
    x = torch.randn(2, 8, 8, 6).bfloat16()
    with torch.no_grad():
        error = half(x).float() - layer(x.float())
        assert error.norm() < limit * layer(x.float()).norm()


def test_double_backward_of_attention_by_rows_raises():
    layer = WindowAttention(6, 2, 3)
    x = torch.randn(1, 4, 4, 6, requires_grad=True)
    grad, = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()
