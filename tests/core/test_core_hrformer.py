# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The network: counts, shapes, sizes, arguments, compilation."""
import copy
import math
from itertools import product

import pytest
import torch
from helpers import NEEDS_FLOAT16, ONE_GRAPH
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hrformer_mm.core import ARCHS, HRFormer, get_arch
from hrformer_mm.core.hrformer import upsample_to
from hrformer_mm.core.kernels import cpu

PARAMS = {
    ('tiny', (0, 1, 2, 3)): 2_572_388,
    ('small', (0, 1, 2, 3)): 7_891_050,
    ('base', (0, 1, 2, 3)): 44_040_666,
    ('tiny', (0, )): 2_524_436,
    ('small', (0, )): 7_746_218,
    ('base', (0, )): 43_210_434,
}
SMALL = dict(channels=(4, 8, 8, 8), heads=(1, 2, 2, 2), modules=(1, 1, 1))
OUTS = [(0, ), (3, ), (1, 2), (0, 3), (0, 1, 2, 3)]


def on_meta(*args, **kwargs):
    with torch.device('meta'):
        return HRFormer(*args, **kwargs)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('arch, outs', PARAMS)
def test_parameter_counts_equal_the_papers(arch, outs):
    assert count(on_meta(arch, out_indices=outs)) == PARAMS[arch, outs]


@pytest.mark.parametrize('arch', ARCHS)
def test_every_arch_has_a_parameter_count(arch):
    assert (arch, (0, 1, 2, 3)) in PARAMS


@pytest.mark.parametrize('ffn, fewer', [('nodw', 93_312), ('mlp', 112_752)])
def test_ffn_without_dw_conv_has_the_counts_of_table_7(ffn, fewer):
    # 8,035,820 less 7,942,508 and less 7,923,068 in the ImageNet model
    assert count(on_meta('tiny', ffn=ffn)) == 2_572_388 - fewer


@pytest.mark.parametrize('window', [5, 9, 11, 15])
def test_window_sizes_have_the_official_parameter_counts(window):
    # Comments of the official FLOP scripts, of base with OCR, less window 7
    tables = 244 * ((2 * window - 1)**2 - 13**2)
    assert count(on_meta('base', window_size=window)) == 44_040_666 + tables


# Each arch once, padded in all maps; the other pairs are for the slow run.
PAIRS = [('tiny', (64, 48)), ('small', (250, 190)), ('base', (32, 32))]


@pytest.mark.parametrize('arch, hw', [
    *PAIRS,
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in product(
        ARCHS, [(64, 64), (96, 160), (256, 192), (520, 520), (250, 190),
                (333, 500), (64, 48), (32, 32), (800, 1333), (1024, 2048)])
      if pair not in PAIRS)
], ids=str)  # yapf: disable
def test_maps_have_strides_4_to_32_rounded_up(arch, hw):
    maps = on_meta(arch).eval()(torch.empty(1, 3, *hw, device='meta'))
    for i, (x, c) in enumerate(zip(maps, ARCHS[arch].channels)):
        expected = [math.ceil(n / (4 * 2**i)) for n in hw]
        assert list(x.shape) == [1, c, *expected]


@pytest.mark.parametrize('hw', [(520, 520), (250, 190), (333, 500), (64, 48),
                                (32, 32), (70, 64), (64, 70)],
                         ids=str)
@pytest.mark.parametrize('window', [7, 15, (5, 3, 2, 1)], ids=str)
def test_any_input_size_has_finite_outputs(hw, window):
    model = HRFormer(SMALL, window_size=window, mask_padding=True).eval()
    with torch.no_grad():
        maps = model(torch.rand(1, 3, *hw))
    assert all(x.isfinite().all() for x in maps)


@given(
    hw=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    window=st.one_of(
        st.integers(1, 16), st.tuples(*[st.integers(1, 16)] * 4)),
    upsample=st.sampled_from(['nearest', 'bilinear', 'bilinear_aligned']),
    attention=st.sampled_from(['window', 'shifted']),
    outs=st.sampled_from(OUTS))
@settings(deadline=None, max_examples=25)
def test_every_combination_returns_maps_of_the_expected_size(
        hw, window, upsample, attention, outs):
    model = HRFormer(
        SMALL, window_size=window, upsample=upsample, attention=attention,
        out_indices=outs).eval()
    with torch.no_grad():
        maps = model(torch.rand(1, 3, *hw))
    for i, x in zip(outs, maps):
        assert list(x.shape[2:]) == [math.ceil(n / (4 * 2**i)) for n in hw]
        assert x.isfinite().all()


@pytest.mark.parametrize('outs', OUTS, ids=str)
@pytest.mark.parametrize('block', ['transformer', 'conv'])
def test_every_parameter_gets_a_gradient(outs, block):
    model = HRFormer(SMALL, out_indices=outs, block=block)
    maps = model(torch.rand(1, 3, 64, 96))  # also: batch 1 while training
    sum(x.square().mean() for x in maps).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_fewer_outputs_keep_the_parameter_names():
    whole = set(on_meta(SMALL).state_dict())
    for outs in OUTS:
        assert set(on_meta(SMALL, out_indices=outs).state_dict()) <= whole


def test_outputs_are_channels_last():
    for x in HRFormer(SMALL)(torch.rand(2, 3, 64, 64)):
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_gradients_have_the_layout_of_their_parameters():
    # else DDP copies them, and says so
    model = HRFormer(SMALL)
    sum(y.mean() for y in model(torch.rand(2, 3, 64, 64))).backward()
    assert [n for n, p in model.named_parameters()
            if p.grad.stride() != p.stride()] == []


def test_the_input_is_not_modified():
    x = torch.rand(1, 3, 64, 64)
    before = x.clone()
    HRFormer(SMALL)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize('mode, align', [('nearest', True),
                                         ('bilinear', False)])
def test_upsampling_fits_maps_of_odd_size(mode, align):
    x, size = torch.rand(1, 2, 17, 9), (33, 17)
    option = {} if mode == 'nearest' else dict(align_corners=False)
    doubled = nn.functional.interpolate(
        x, scale_factor=2, mode=mode, **option)
    expected = nn.functional.interpolate(
        doubled, size, mode='bilinear', align_corners=align)
    assert torch.equal(upsample_to(x, 2, size, mode), expected)
    assert torch.equal(upsample_to(x, 2, (34, 18), mode), doubled)


def test_bias_tables_are_initialized_by_the_constructor():
    torch.manual_seed(0)
    tables = [
        p for n, p in HRFormer('small').named_parameters()
        if n.endswith('relative_position_bias_table')
    ]
    values = torch.cat([t.flatten() for t in tables])
    assert values.numel() == 20_618
    # trunc-normal of std 0.02, cut at 2: its cut is far outside
    assert abs(values.std().item() - .02) < .02 * 3 / (2 * 20_618)**.5
    assert min(t.std().item() for t in tables) > .01


def test_train_and_eval_return_the_model():
    model = on_meta(SMALL)
    assert model.eval() is model and model.train() is model


def test_arch_as_a_dict_is_not_modified_and_equals_its_name():
    arch = dict(channels=[32, 64, 128, 256], heads=[1, 2, 4, 8],
                modules=[1, 4, 2])  # yapf: disable
    before = copy.deepcopy(arch)
    assert count(on_meta(arch)) == PARAMS['small', (0, 1, 2, 3)]
    assert arch == before and get_arch(arch) == ARCHS['small']


@pytest.mark.parametrize('kwargs, names', [
    (dict(arch='huge'), ['base', 'small', 'tiny', 'huge']),
    (dict(arch=dict(SMALL, depth=3)), ['channels', 'depth']),
    (dict(arch=dict(channels=(4, 8, 8, 8))), ['heads', 'modules']),
    (dict(arch=dict(SMALL, heads=(3, 2, 2, 2))), ['divisible', 'heads']),
    (dict(arch=dict(SMALL, channels=(4, 8))), ['channels', '4']),
    (dict(arch=dict(SMALL, blocks=0)), ['blocks', 'at least 1']),
    (dict(window_size=0), ['window_size', 'positive']),
    (dict(window_size=(7, 7)), ['window_size', 'four']),
    (dict(window_size=7.5), ['window_size', '7.5']),
    (dict(out_indices=()), ['out_indices', 'distinct']),
    (dict(out_indices=(0, 4)), ['out_indices', '(0, 1, 2, 3)']),
    (dict(out_indices=(1, 0)), ['out_indices', 'order']),
    (dict(drop_path_rate=1.), ['drop_path_rate', '[0, 1)']),
    (dict(ffn='conv'), ['ffn', 'dwconv', 'nodw', 'mlp']),
    (dict(attention='swin'), ['attention', 'window', 'shifted']),
    (dict(block='basic'), ['block', 'transformer', 'conv']),
    (dict(upsample='bicubic'), ['upsample', 'nearest', 'bilinear']),
    (dict(with_cp='all'), ['with_cp', 'ffn']),
], ids=str)  # yapf: disable
def test_invalid_arguments_raise_with_the_choices(kwargs, names):
    with pytest.raises(ValueError) as error:
        on_meta(**kwargs)
    assert all(name in str(error.value) for name in names)


@ONE_GRAPH
@pytest.mark.parametrize('kwargs', [
    dict(drop_path_rate=.1),
    pytest.param(dict(with_cp=True), marks=pytest.mark.slow),
    pytest.param(dict(with_cp='ffn'), marks=pytest.mark.slow),
], ids=str)  # yapf: disable
def test_training_compiles_to_one_graph(kwargs):
    torch._dynamo.reset()
    model = HRFormer(dict(SMALL, blocks=1), **kwargs)
    # recomputation needs the ahead-of-time backward, which takes its time
    backend = 'aot_eager' if 'with_cp' in kwargs else 'eager'
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    sum(y.mean() for y in compiled(torch.rand(2, 3, 64, 72))).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.bn1.num_batches_tracked == 1


@ONE_GRAPH
@pytest.mark.slow
def test_shifted_windows_compile_to_one_graph():
    torch._dynamo.reset()
    model = HRFormer(SMALL, attention='shifted', mask_padding=True).eval()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    x = torch.rand(2, 3, 64, 72)
    with torch.no_grad():
        for y, z in zip(compiled(x), model(x)):
            torch.testing.assert_close(y, z)


@ONE_GRAPH
@pytest.mark.slow
@pytest.mark.parametrize('arch', ARCHS)
@pytest.mark.parametrize('training', [True, False])
def test_no_graph_breaks_at_full_size(arch, training):
    torch._dynamo.reset()
    model = HRFormer(arch, drop_path_rate=.1).train(training)
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    assert len(compiled(torch.rand(2, 3, 64, 64))) == 4


@ONE_GRAPH
def test_compiled_outputs_equal_eager_ones():
    torch._dynamo.reset()
    model = HRFormer(dict(SMALL, blocks=1)).eval()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    x = torch.rand(2, 3, 64, 72)
    with torch.no_grad():
        for y, z in zip(compiled(x), model(x)):
            torch.testing.assert_close(y, z)


@pytest.mark.parametrize('dtype', [
    torch.bfloat16, pytest.param(torch.float16, marks=NEEDS_FLOAT16)])
def test_half_precision_autocast_stays_finite(dtype):
    model = HRFormer(SMALL)
    with torch.autocast('cpu', dtype):
        maps = model(torch.rand(2, 3, 64, 64))
    sum(y.float().mean() for y in maps).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.fixture
def batch_and_parts(monkeypatch):
    """A network, images, and how many of them its stem saw at a time."""
    torch.manual_seed(0)
    net, seen = HRFormer(SMALL), []
    stem = net.forward_stem
    monkeypatch.setattr(
        net, 'forward_stem', lambda x: seen.append(len(x)) or stem(x))
    return net, torch.randn(5, 3, 64, 64), seen


def test_a_large_batch_is_processed_in_chunks(batch_and_parts, monkeypatch):
    """With equal maps, to 1e-5, in the same layout."""
    net, x, seen = batch_and_parts
    net.eval()
    with torch.no_grad():
        whole = net(x)
        monkeypatch.setattr(cpu, 'CACHED', 2**19)
        parts = net(x)
    assert seen == [5, 2, 2, 1]
    for a, b in zip(parts, whole):
        assert a.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize('why', ['training', 'gradients', 'hooks'])
def test_a_batch_is_not_chunked_where_the_result_would_differ(
        why, batch_and_parts, monkeypatch):
    net, x, seen = batch_and_parts
    monkeypatch.setattr(cpu, 'CACHED', 2**12)
    net.train(why == 'training')
    if why == 'hooks':
        for module in net.modules():
            module.register_forward_hook(lambda *_: None)
    with torch.set_grad_enabled(why == 'gradients'):
        net(x)
    assert seen == [5]


def test_torchs_flop_counter_counts_the_cpu_operators():
    """As many operations as of the plain ones; windows pad the latter."""
    counts = []
    for device in ('cpu', 'meta'):
        with FlopCounterMode(display=False) as counter:
            HRFormer('tiny').to(device)(torch.rand(4, 3, 64, 64).to(device))
        counts.append(counter.get_total_flops())
    assert .7 * counts[1] < counts[0] <= counts[1]
