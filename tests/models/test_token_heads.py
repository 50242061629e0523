# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""TransPose and TokenPose over a stem of three branches."""
import math

import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config

from hrformer_mm import zoo
from hrformer_mm.checkpoints.convert import ConversionReport
from hrformer_mm.checkpoints.loading import select_tensors
from hrformer_mm.core import HRFormer, get_arch
from hrformer_mm.core.positions import sine_position
from hrformer_mm.models.baselines.common import PositionedLayer
from hrformer_mm.models.baselines.tokenpose import TokenPose
from hrformer_mm.models.baselines.transpose import TransPose

ARCH = dict(channels=(4, 8, 8, 8), heads=(1, ) * 4, modules=(1, 2, 1))
STEM = dict(channels=(4, 8, 8), heads=(1, ) * 3, modules=(1, 2))


def small_tokens(**changes):
    return TokenPose(
        8, 5, (8, 6),
        **dict(dict(patch_size=(2, 3), dim=12, hidden=24, depths=(2, 1),
                    heads=2), **changes))  # yapf: disable


# In millions as printed, to a decimal. Both papers count their table of
# positions, which is fixed and computed here: H * W * dim numbers.
@pytest.mark.parametrize('name, positions, printed', [
    ('transpose_h-a6_coco_256x192', 64 * 48 * 96, 17.5),
    ('tokenpose_l-d24_coco_256x192', 16 * 16 * 192, 27.5),
    ('tokenpose_l-d24_coco_384x288', 16 * 18 * 192, 29.9),
])
def test_config_has_the_published_number_of_parameters(name, positions,
                                                       printed):
    pytest.importorskip('mmpose')
    model = zoo.build_model(Config.fromfile(CONFIGS / f'pose/{name}.py'))
    count = sum(p.numel() for p in model.parameters())
    assert round((count + positions) / 1e6, 1) == printed


def test_position_sines_have_one_period_over_the_map():
    at = sine_position((4, 2), 8, torch.device('cpu')).reshape(4, 2, 8)
    rows = at[:, 0, 0]  # the lowest frequency of the vertical half: a sine
    expected = [math.sin(2 * math.pi * y / 4) for y in (1, 2, 3, 4)]
    torch.testing.assert_close(rows, torch.tensor(expected), atol=1e-6,
                               rtol=0)
    assert torch.equal(at[:, 0, :4], at[:, 1, :4])  # of the row alone
    assert torch.equal(at[0, :, 4:], at[3, :, 4:])  # of the column alone
    assert len({tuple(p) for p in at.reshape(8, 8).tolist()}) == 8


def test_positions_reach_queries_and_keys_but_not_values():
    layer = PositionedLayer(8, 1, 16, 0., batch_first=True).eval()
    with torch.no_grad():  # attention to all alike, then only values matter
        layer.self_attn.in_proj_weight[:16] = 0
    x = torch.rand(1, 5, 8)
    first, second = (layer(x, at) for at in torch.rand(2, 1, 5, 8))
    torch.testing.assert_close(first, second)
    layer.self_attn.in_proj_weight.data[:16] = torch.eye(8).repeat(2, 1) * 9
    first, second = (layer(x, at) for at in torch.rand(2, 1, 5, 8))
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize('hw', [(8, 6), (5, 7)], ids=str)
def test_transpose_accepts_maps_of_any_size(hw):
    model = TransPose(8, dim=16, hidden=16, depth=2).eval()
    assert model(torch.rand(2, 8, *hw)).shape == (2, 16, *hw)


def test_every_pixel_reaches_every_pixel_of_transpose():
    model = TransPose(8, dim=16, hidden=16, depth=1).eval()
    x = torch.rand(1, 8, 6, 4, requires_grad=True)
    model(x)[0, :, 0, 0].square().sum().backward()
    assert (x.grad[0].abs().sum(0) > 0).all()


def test_tokenpose_returns_a_heatmap_for_each_keypoint():
    model = small_tokens().eval()
    maps = model(torch.rand(2, 8, 8, 6))
    assert maps.shape == (2, 5, 8, 6)
    assert not torch.allclose(maps[:, 0], maps[:, 1])
    maps.sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_keypoints_have_no_position():
    """Positions are added to patches: once at entry, then inside groups."""
    model = small_tokens(depths=(2, 1))
    seen = []
    model.groups = torch.nn.ModuleList(
        torch.nn.ModuleList(Spy(seen) for _ in group)
        for group in model.groups)
    model(torch.zeros(1, 8, 8, 6))
    at = sine_position((4, 2), 12, torch.device('cpu'))
    bias = model.patches.bias.detach()
    for x, times in zip(seen, (1, 2, 2)):
        torch.testing.assert_close(x[:, :5], model.tokens)
        torch.testing.assert_close(x[:, 5:], bias + times * at)


class Spy(torch.nn.Module):

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x):
        self.seen.append(x.detach())
        return x


@pytest.mark.parametrize('block', ['conv', 'transformer'])
def test_three_branches_equal_four_after_stage_3(block):
    torch.manual_seed(0)
    full = HRFormer(ARCH, block=block, out_indices=(0, )).eval()
    stem = HRFormer(STEM, block=block, out_indices=(0, )).eval()
    report = ConversionReport('full')
    tensors = select_tensors(full.state_dict(), stem, report, strict=True)
    stem.load_state_dict(tensors)
    assert report.missing == [] and report.unexpected == []
    assert any(k.startswith('stage4.') for k in report.dropped)
    maps = []
    full.stage3.register_forward_hook(lambda m, i, xs: maps.append(xs[0]))
    x = torch.rand(1, 3, 64, 48)
    with torch.no_grad():
        full(x)
        torch.testing.assert_close(stem(x)[0], maps[0])


def test_branches_heads_and_modules_must_fit_together():
    with pytest.raises(ValueError, match='arch.modules must be 2'):
        get_arch(dict(STEM, modules=(1, 2, 1)))
    with pytest.raises(ValueError, match=r'out of \(0, 1, 2\)'):
        HRFormer(STEM, out_indices=(0, 1, 2, 3))
