# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Swin-T and Intrawin-T: against MMPretrain's, and what each block reaches."""
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from hrformer_mm.core.attention import WindowAttention
from hrformer_mm.core.blocks import Block
from hrformer_mm.models.baselines import swin

mmpretrain = pytest.importorskip(
    'mmpretrain.models', reason='the reference is that of MMPretrain')
SMALL = dict(dim=8, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8))


def build(**options):
    return swin.SwinTransformer(**{**SMALL, **options})


def reference(window=7, **options):
    """MMPretrain's Swin of the same size, with other than initial values."""
    model = mmpretrain.SwinTransformer(
        arch=dict(
            embed_dims=SMALL['dim'],
            depths=SMALL['depths'],
            num_heads=SMALL['heads']),
        window_size=window,
        out_indices=(0, 1, 2, 3),
        **options)
    for name, p in model.named_parameters():
        if 'bias' in name:  # tables of relative positions too
            nn.init.normal_(p)
        elif p.ndim > 1:
            nn.init.normal_(p, std=2 * p[0].numel()**-.5)
    model.eval()
    return model


@pytest.mark.parametrize('hw, window', [
    ((224, 224), 7),
    ((448, 448), 7),
    ((222, 223), 7),  # filled up to whole patches
    ((256, 256), 4),
], ids=str)
def test_swin_equals_mmpretrains(hw, window):
    theirs, ours = reference(window), build(window_size=window).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, *hw)
    with torch.no_grad():
        for a, b in zip(ours(x), theirs(x)):
            # float32 sums in another order, after eight blocks
            assert_close(a, b, rtol=1e-4, atol=2e-5)


# Of windows of 4: no padding, on one side, on both, and of one axis only.
@pytest.mark.parametrize('hw', [(8, 12), (7, 11), (5, 6), (9, 8), (8, 10)],
                         ids=str)
@pytest.mark.parametrize('shift', [0, 2])
def test_shifted_windows_equal_those_of_mmpretrain_on_padded_maps(hw, shift):
    from mmpretrain.models.utils import ShiftWindowMSA
    H, W = hw
    theirs = ShiftWindowMSA(8, 2, 4, shift_size=shift)
    ours = WindowAttention(8, 2, 4, shift=shift)
    for p in theirs.parameters():
        nn.init.normal_(p, std=.5)
    ours.attn.load_state_dict({k: v for k, v in theirs.w_msa.state_dict()
                               .items() if 'index' not in k})
    x = torch.randn(2, H, W, 8)
    # Theirs pads at the end, ours evenly: it is given maps that are filled up.
    top, left = -H % 4 // 2, -W % 4 // 2
    full = F.pad(x, (0, 0, left, -W % 4 - left, top, -H % 4 - top))
    expected = theirs(full.flatten(1, 2), full.shape[1:3])
    expected = expected.view_as(full)[:, top:top + H, left:left + W]
    # float32 sums in another order
    assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


def reached(hw, pixel, window, shift, reach):
    """Pixels that depend on one, cell by cell.

    A pixel reaches its window of the padded and shifted map, without what
    the shift has wrapped around, and then ``reach`` pixels further.
    """
    H, W = hw

    def cell(y, x):
        place = []
        for at, n in ((y, H), (x, W)):
            pad = -n % window
            moves = shift if n + pad > window else 0
            at += pad // 2
            place += [(at - moves) % (n + pad) // window, at < moves]
        return place

    own = [p for p in itertools.product(range(H), range(W))
           if cell(*p) == cell(*pixel)]
    moved = torch.zeros(H, W, dtype=torch.bool)
    for y, x in own:
        moved[max(y - reach, 0):y + reach + 1,
              max(x - reach, 0):x + reach + 1] = True
    return moved


@given(data=st.data(), window=st.integers(2, 5), is_shifted=st.booleans(),
       ffn=st.sampled_from(['dwconv', 'nodw', 'mlp']))
@settings(deadline=None, max_examples=60)
def test_a_pixel_reaches_its_window_and_neighbours_by_depth_wise_conv_only(
        data, window, is_shifted, ffn):
    hw = data.draw(st.tuples(*[st.integers(1, 13)] * 2), label='hw')
    pixel = data.draw(
        st.tuples(*[st.integers(0, n - 1) for n in hw]), label='pixel')
    shift = window // 2 if is_shifted else 0
    torch.manual_seed(0)
    block = Block(8, 2, ffn=ffn, window_size=window, shift=shift).eval()
    x = torch.rand(1, *hw, 8)
    y = x.clone()
    y[(0, *pixel)] = torch.rand(8)
    with torch.no_grad():
        moved = (block(x) != block(y)).any(-1)[0]
    reach = 1 if ffn == 'dwconv' else 0
    assert torch.equal(moved, reached(hw, pixel, window, shift, reach))


@pytest.mark.parametrize('attention', ['shifted', 'window'])
def test_only_every_second_block_of_swin_shifts_and_none_of_intrawin(
        attention):
    model = swin.SwinTransformer(**SMALL, window_size=5, attention=attention)
    shifts = [[block.attn.shift for block in stage.blocks]
              for stage in model.stages]
    assert shifts == [[0, 2 if attention == 'shifted' else 0]] * 4


@given(hw=st.tuples(*[st.integers(1, 90)] * 2), window=st.integers(1, 8),
       attention=st.sampled_from(['shifted', 'window']),
       ffn=st.sampled_from(['mlp', 'dwconv', 'nodw']))
@settings(deadline=None, max_examples=10)
def test_any_image_size_gives_strides_4_to_32_rounded_up(
        hw, window, attention, ffn):
    model = swin.SwinTransformer(
        **SMALL, window_size=window, attention=attention, ffn=ffn).eval()
    with torch.no_grad():
        maps = model(torch.rand(1, 3, *hw))
    for i, x in enumerate(maps):
        size = hw
        for step in (4, 2, 2, 2)[:i + 1]:
            size = [math.ceil(n / step) for n in size]
        assert list(x.shape) == [1, 8 * 2**i, *size] and x.isfinite().all()


@pytest.mark.parametrize('with_cp', ['ffn', True])
@pytest.mark.parametrize('ffn', ['mlp', 'dwconv'])
def test_every_parameter_gets_the_gradient_that_recomputing_gives(
        ffn, with_cp):
    x, gradients = torch.rand(2, 3, 64, 48), []
    for level in (False, with_cp):
        torch.manual_seed(0)
        model = build(ffn=ffn, with_cp=level, drop_path_rate=.3)
        sum(y.square().mean() for y in model(x)).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(g is not None for g in gradients[0])
    for plain, recomputed in zip(*gradients):
        assert_close(recomputed, plain)


def test_depth_is_stochastic_linearly_to_the_last_block():
    model = swin.SwinTransformer(drop_path_rate=.2)
    rates = [block.drop_path.rate for stage in model.stages
             for block in stage.blocks]
    assert_close(torch.tensor(rates), torch.linspace(0, .2, 12))


def test_linear_layers_are_initialized_as_in_the_original():
    torch.manual_seed(0)
    model = build(dim=48, heads=(3, 6, 12, 24))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            assert abs(layer.weight.std().item() - .02) < 2e-3
            assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize('options, names', [
    (dict(ffn='conv'), ['dwconv', 'nodw', 'mlp']),
    (dict(attention='dense'), ['window', 'shifted']),
    (dict(with_cp=1.5), ['ffn']),
    (dict(depths=(2, 2)), ['depths', '4 stages']),
    (dict(out_indices=(4, )), ['out_indices']),
    (dict(drop_path_rate=1), ['drop_path_rate']),
], ids=str)
def test_an_invalid_value_lists_the_choices(options, names):
    with pytest.raises(ValueError) as error:
        build(**options)
    assert all(name in str(error.value) for name in names)


def pretrained(path, **options):
    model = build(
        init_cfg=dict(type='Pretrained', checkpoint=str(path)), **options)
    model.init_weights()
    return model


def test_weights_of_a_classifier_load_into_all_stages(tmp_path):
    given_weights = build(out_indices=(3, )).state_dict()
    torch.save(
        dict(state_dict={f'backbone.{k}': v
                         for k, v in given_weights.items()}),
        tmp_path / 'swin.pth')
    loaded = pretrained(tmp_path / 'swin.pth').state_dict()
    for name, value in given_weights.items():
        assert torch.equal(loaded[name], value), name
    assert set(loaded) - set(given_weights) == {
        f'norm{i}.{k}' for i in range(3) for k in ('weight', 'bias')
    }


def test_weights_of_mmpretrain_load(tmp_path):
    theirs = reference()
    torch.save(theirs.state_dict(), tmp_path / 'swin.pth')
    model, x = pretrained(tmp_path / 'swin.pth').eval(), torch.rand(
        1, 3, 224, 224)
    with torch.no_grad():
        # float32 sums in another order, after eight blocks
        assert_close(model(x)[3], theirs(x)[3], rtol=1e-4, atol=2e-5)


def test_weights_that_do_not_cover_the_backbone_are_rejected(tmp_path):
    torch.save(build(ffn='mlp').state_dict(), tmp_path / 'swin_mlp.pth')
    with pytest.raises(RuntimeError) as error:
        pretrained(tmp_path / 'swin_mlp.pth', ffn='dwconv')
    message = str(error.value)
    assert 'swin_mlp.pth does not fit the backbone' in message
    assert 'ffn.norm1' in message and '\n' not in message
