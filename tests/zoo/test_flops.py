# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Counters against the paper's figures, torch's counter and MMEngine's."""
import json
import runpy
import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers import CONFIGS, ROOT
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hrformer_mm import zoo
from hrformer_mm.core import HRFormer
from hrformer_mm.zoo import flops


def count_config(name, shape=None, **options):
    path = next(CONFIGS.glob(f'*/{name}.py'))
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options)
    return flops.count(zoo.build_model(cfg), shape or zoo.input_size(name))


# Billions of multiply-adds: as printed by the paper's tools to three decimals
# where the official code was run, hence a tolerance of half of the last one.
@pytest.mark.parametrize('name, expected', [
    ('hrformer_t_coco_256x192', 1.318),
    ('hrformer_t_coco_384x288', 2.940),
    ('hrformer_s_coco_256x192', 2.805),
    ('hrformer_s_coco_384x288', 6.216),
    ('hrformer_b_coco_256x192', 12.157),
    ('hrformer_b_coco_384x288', 26.786),
])
def test_paper_counter_of_pose_reproduces_the_papers_figures(name, expected):
    counted = count_config(name)
    assert counted.total('paper-pose') / 1e9 == pytest.approx(
        expected, abs=6e-4)


@pytest.mark.parametrize('name, paper, macs', [
    ('hrformer_t_imagenet_224', 1.828, 1.708),
    ('hrformer_s_imagenet_224', 3.556, 3.364),
    ('hrformer_b_imagenet_224', 13.713, 13.308),
])
def test_paper_counter_of_cls_reproduces_the_papers_figures(name, paper, macs):
    counted = count_config(name)
    assert counted.total('paper-cls') / 1e9 == pytest.approx(paper, abs=6e-4)
    assert counted.total('macs') / 1e9 == pytest.approx(macs, abs=6e-4)


@pytest.mark.parametrize('name, shape, paper, macs', [
    ('hrformer_s_cityscapes_512x1024', (1024, 1024), 418.260, 413.878),
    ('hrformer_b_cityscapes_512x1024_w15', (1024, 1024), 1119.863, 1106.557),
    ('hrformer_s_ade20k_520x520', (512, 512), 109.449, 108.312),
    ('hrnet_w48_cityscapes_512x1024', (1024, 1024), 924.75, None),
])
def test_paper_counter_of_seg_reproduces_the_papers_figures(
        name, shape, paper, macs):
    counted = count_config(name, shape)
    # 1e-4: the official head scales the attention scores, ours the queries
    assert counted.total('paper-seg') / 1e9 == pytest.approx(paper, rel=1e-4)
    if macs is not None:
        assert counted.total('macs') / 1e9 == pytest.approx(macs, rel=3e-6)


def test_nodw_is_as_cheap_as_the_official_variant():
    counted = count_config('hrformer_t_imagenet_224',
                           **{'model.backbone.ffn': 'nodw'})
    assert counted.parameters == 7942508
    # 1e-3: the official figure is known to three decimals of 1.761
    assert counted.total('paper-cls') / 1e9 == pytest.approx(1.761, rel=1e-3)


class Mixed(nn.Module):
    """Operations that HRFormer lacks, in several spellings."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1)
        self.fc = nn.Linear(4, 6)

    def forward(self, x):
        x = self.up(x).flatten(2).transpose(1, 2)  # [1, 256, 4]
        a = torch.einsum('bic,bjc->bij', x, x)
        y = torch.baddbmm(a, x, x.transpose(1, 2)) + a @ a
        y += torch.bmm(a, a)
        y *= 2
        return self.fc(torch.softmax(y, -1) @ x) / 2


@pytest.mark.parametrize('make', [
    lambda: HRFormer('tiny'),
    lambda: HRFormer('tiny', attention='shifted', ffn='mlp'),
    lambda: HRFormer('tiny', block='conv'),
    Mixed,
], ids=['hrformer', 'shifted', 'conv', 'mixed'])  # yapf: disable
def test_multiply_adds_equal_those_of_torch(make):
    with torch.device('meta'):
        model, image = make(), torch.empty(1, 3, 16, 8)
    with FlopCounterMode(display=False) as torch_counter:
        model.eval()(image)
    counted = flops.count(model, (16, 8))
    assert counted.total('macs') * 2 == torch_counter.get_total_flops()


@pytest.mark.parametrize('upsample', ['nearest', 'bilinear'])
def test_mmengine_column_equals_mmengines_counter(upsample):
    from mmengine.analysis import FlopAnalyzer
    model = HRFormer('tiny', upsample=upsample).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with flops.attention_in_the_open():
            expected = FlopAnalyzer(model, torch.zeros(1, 3, 64, 32)).total()
    assert flops.count(model, (64, 32)).total('mmengine') == expected


def test_in_place_products_are_not_counted_by_the_papers_counter():
    with torch.device('meta'):
        ops = flops.record(Mixed(), (16, 8))
    product, = [op for op in ops if op.kind == 'mul']
    quotient, = [op for op in ops if op.kind == 'div']
    assert product.in_place and flops.fvcore_worth(product) == 0
    assert flops.fvcore_worth(quotient) == quotient.size


@pytest.mark.parametrize('masked', [False, True])
def test_plain_attention_equals_torchs_fused_attention(masked):
    q, k, v = torch.randn(3, 2, 4, 9, 8)
    mask = torch.randn(1, 4, 9, 9) if masked else None
    torch.testing.assert_close(
        flops.plain_attention(q, k, v, mask),
        F.scaled_dot_product_attention(q, k, v, mask))


def test_counting_does_not_change_the_model():
    fused = F.scaled_dot_product_attention
    model = HRFormer('tiny').train()
    flops.count(model, (32, 32))
    assert model.training and F.scaled_dot_product_attention is fused
    assert not any(m._forward_hooks or m._forward_pre_hooks
                   for m in model.modules())


def test_stages_are_those_of_the_paper():
    with torch.device('meta'):
        counted = flops.count(HRFormer('tiny'), (64, 64))
    assert list(counted.stages) == [
        'stem', 'stage1', 'stage2', 'stage3', 'stage4'
    ]


def test_tool_prints_writes_and_draws(tmp_path, capsys):
    json_file, png = tmp_path / 'count.json', tmp_path / 'count.png'
    main = runpy.run_path(str(ROOT / 'tools/analysis/get_flops.py'))['main']
    main([
        str(CONFIGS / 'pose/hrformer_t_coco_256x192.py'), '--shape', '64',
        '64', '--json', str(json_file), '--plot', str(png)
    ])
    printed = capsys.readouterr().out
    assert '2,524,759 parameters' in printed
    assert flops.WHY_THEY_DIFFER in printed
    content = json.loads(json_file.read_text())
    assert content['shape'] == [64, 64] and 'stage4' in content['stages']
    assert png.read_bytes().startswith(b'\x89PNG')


class Attend(nn.Module):
    """Attention that frameworks have, by a name taken before or by torch."""

    def __init__(self, fused):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fused = fused

    def forward(self, image):
        x = image.flatten(1).unflatten(1, (-1, 8))  # [1, tokens, 8]
        if self.fused:
            return fused_attention(x, x[:, :5], x[:, :5])
        return self.attention(x, x[:, :5], x[:, :5], need_weights=False)[0]


fused_attention = F.scaled_dot_product_attention


@pytest.mark.parametrize('fused', [True, False])
def test_attention_of_the_frameworks_is_counted(fused):
    with torch.device('meta'):
        model = Attend(fused)
    counted = flops.count(model, (4, 8))
    tokens = 3 * 4 * 8 // 8
    products = 2 * tokens * 5 * 8  # queries with keys, weights with values
    projections = 0 if fused else (2 * tokens + 2 * 5) * 8 * 8
    assert counted.total('macs') == products + projections
    heads = 1 if fused else 2
    assert counted.total('paper-seg') == (
        products + projections + 5 * heads * tokens * 5)
