# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Feed-forward, blocks, stochastic depth and recomputation."""
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hrformer_mm.core import HRFormer
from hrformer_mm.core.arch import ARCHS, drop_path_rates
from hrformer_mm.core.blocks import FFN, Block, DropPath, PointwiseConv

SMALL = dict(channels=(4, 8, 8, 8), heads=(1, 2, 2, 2), modules=(1, 1, 1))


def reference_ffn(ffn: FFN, x: torch.Tensor) -> torch.Tensor:
    """The feed-forward with PyTorch's own 1x1 convolutions, NCHW."""
    x = x.permute(0, 3, 1, 2).contiguous()
    for conv, norm in (('fc1', 'norm1'), ('dw3x3', 'norm2'),
                       ('fc2', 'norm3')):
        if getattr(ffn, conv) is None:
            continue
        conv = getattr(ffn, conv)
        x = nn.functional.conv2d(x, conv.weight, conv.bias, 1, conv.padding,
                                 1, conv.groups)
        x = nn.functional.gelu(getattr(ffn, norm)(x))
    return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize('dw_conv', [True, False])
@pytest.mark.parametrize('training', [True, False])
def test_ffn_equals_plain_convolutions(dw_conv, training):
    ffn = FFN(6, 24, dw_conv).train(training)
    x = torch.rand(2, 5, 7, 6)
    # float32 sums in another order
    assert_close(ffn(x), reference_ffn(ffn, x), rtol=1e-4, atol=1e-5)


def test_pointwise_conv_equals_a_convolution():
    conv, x = PointwiseConv(3, 5), torch.rand(2, 3, 4, 6)
    plain = nn.Conv2d(3, 5, 1)
    plain.load_state_dict(conv.state_dict())
    assert_close(conv(x), plain(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('ffn, reach', [('dwconv', 1), ('nodw', 0),
                                        ('mlp', 0)])
def test_only_the_depth_wise_conv_connects_windows(ffn, reach):
    block = Block(8, 2, window_size=4, ffn=ffn).eval()
    x = torch.rand(1, 12, 12, 8)
    y = x.clone()
    y[0, 5, 5] = torch.rand(8)
    moved = (block(x) != block(y)).any(-1)[0]
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[4 - reach:8 + reach, 4 - reach:8 + reach] = True
    assert torch.equal(moved, expected)


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    drop, x = DropPath(.25), torch.ones(4000, 2, 3)
    out = drop(x)
    assert set(out.unique().tolist()) == {0., torch.tensor(1 / .75).item()}
    assert (out == out[:, :1, :1]).all()
    # three standard deviations of the mean of 4000 samples
    assert abs(out.mean().item() - 1) < 3 * (.25 / .75 / 4000)**.5
    assert drop.eval()(x) is x


@pytest.mark.parametrize('arch', ARCHS)
def test_drop_path_rates_grow_linearly_to_the_last_block(arch):
    rates = sum(drop_path_rates(.3, ARCHS[arch]), [])
    depth = sum(ARCHS[arch].modules) * 2
    assert_close(torch.tensor(rates), torch.linspace(0, .3, depth))


def test_branches_of_a_module_share_their_drop_path_rates():
    model = HRFormer('tiny', drop_path_rate=.2)
    for stage in (model.stage2, model.stage3, model.stage4):
        for module in stage:
            rates = {
                tuple(block.drop_path.rate for block in branch)
                for branch in module.branches
            }
            assert len(rates) == 1


def run(with_cp, x, **kwargs):
    torch.manual_seed(0)
    model = HRFormer(SMALL, window_size=3, with_cp=with_cp, **kwargs)
    saved = 0

    def count(t):
        nonlocal saved
        saved += t.numel() if not isinstance(t, nn.Parameter) else 0
        return t

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        loss = sum(y.square().mean() for y in model(x))
    loss.backward()
    return model, loss, saved


@pytest.mark.parametrize('block', ['transformer', 'conv'])
@pytest.mark.parametrize('with_cp', ['ffn', True])
def test_recomputing_yields_equal_gradients_and_statistics(with_cp, block):
    x = torch.rand(2, 3, 64, 64)
    kwargs = dict(drop_path_rate=.3, block=block)
    plain, loss, _ = run(False, x, **kwargs)
    model, loss_cp, _ = run(with_cp, x, **kwargs)
    assert_close(loss_cp, loss, rtol=0, atol=0)
    for (name, p), q in zip(plain.named_parameters(), model.parameters()):
        assert_close(q.grad, p.grad, msg=name)
    for (name, p), q in zip(plain.named_buffers(), model.buffers()):
        assert_close(q, p, rtol=0, atol=0, msg=name)


def test_recomputing_more_saves_fewer_activations():
    x = torch.rand(2, 3, 64, 64)
    none, ffn, full = (run(level, x)[2] for level in (False, 'ffn', True))
    assert full < .5 * none
    assert full < ffn < .9 * none


@pytest.mark.parametrize('dtype, exact', [(torch.float32, 1e-6),
                                          (torch.bfloat16, 2e-2)])
def test_buffers_are_reused_only_where_no_hook_sees_them(dtype, exact):
    """Evaluation without gradients gives the same, relative to the norm."""
    torch.manual_seed(0)
    ffn = FFN(8, 16).eval().to(dtype)
    for norm in (ffn.norm1, ffn.norm2, ffn.norm3):
        nn.init.uniform_(norm.running_var, .5, 2)
        nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 5, 4, 8, dtype=dtype)
    wanted = ffn(x).detach()  # with gradients
    seen, kept = [], x.clone()
    with torch.no_grad():
        alone = ffn(x)
        ffn.fc1.register_forward_hook(
            lambda module, args, out: seen.append((out, out.clone())))
        watched = ffn(x)
    assert torch.equal(x, kept)
    assert all(torch.equal(a, b) for a, b in seen) and seen
    for y in (alone, watched):
        assert (y - wanted).norm() <= exact * wanted.norm()
