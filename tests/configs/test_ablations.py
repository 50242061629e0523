# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Configs of the paper's ablations: one change each, exact sizes, a run each.

Configs for segmentation are run in ``test_seg_rows.py``.
"""
import math
import re

import pytest
import torch
from helpers import (
    SMALL,
    last_scalars,
    run_training,
    tiny_config,
    write_tiny_coco,
)
from image_folders import SMALL_IMAGES, write_images
from mmengine.config import Config

from hrformer_mm import zoo
from hrformer_mm.core.blocks import Block
from hrformer_mm.zoo import flops

TABLES = {f'Table {i}' for i in range(7, 12)}
# Tables 7 and 11 as computed with the official code; Table 8 as published.
PARAMETERS = {
    'hrformer_t_imagenet_224_nodw': 7_942_508,
    'hrnet_t_imagenet_224': 15_597_464,
    'hrnet_s_imagenet_224': 24_469_416,
    'hrnet_b_imagenet_224': 85_291_352,
    'swin_t_imagenet_224': 28_288_354,
}
BASE = re.compile(r"^_base_ = '\./(.*)\.py'", re.MULTILINE)
CHANGED = {entry.name: (entry, BASE.search(entry.path.read_text()))
           for entry in zoo.list_entries()
           if entry.config and TABLES & set(entry.paper)}  # yapf: disable
CHANGED = {k: (entry, found[1])
           for k, (entry, found) in CHANGED.items() if found}
# By type of backbone: a network of a few thousand parameters, and the
# channels of its last map.
SMALL_BACKBONES = {
    'hrformer_mm.HRFormer': (dict(arch=SMALL), 8),
    'hrformer_mm.SwinTransformer': (dict(
        dim=8, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8)), 64),
    'mmpretrain.SwinTransformer': (dict(
        arch=dict(embed_dims=8, depths=[2, 2, 2, 2],
                  num_heads=[1, 2, 4, 8])), 64),
}
SMALL_BACKBONES.update({
    f'mmpretrain.{name}': (dict(
        arch=dict(embed_dims=16, num_layers=2, num_heads=2,
                  feedforward_channels=32)), 16)
    for name in ('VisionTransformer', 'DistilledVisionTransformer')
})  # yapf: disable


def names(task):
    return sorted(k for k, (entry, _) in CHANGED.items() if entry.task == task)


def mark_slow(names, *fast):
    return [r if r in fast else pytest.param(r, marks=pytest.mark.slow)
            for r in names]


def load(name):
    return zoo.get_config(name)


def backbone(name):
    return zoo.build_model(load(name)).backbone


def test_there_is_a_config_for_every_ablation_and_task():
    expected = {
        f'{model}_{data}{change}'
        for data in ('imagenet_224', 'coco_256x192', 'pascal-context_520x520')
        for model, change in [
            ('hrformer_t', '_nodw'), ('hrformer_t', '_nodw_shift'),
            ('swin_t', ''), ('swin_t', '_dw'), ('intrawin_t', ''),
            ('intrawin_t', '_dw'), ('hrnet_t', ''), ('hrnet_s', ''),
            ('hrnet_b', '')]
    }  # yapf: disable
    expected |= {f'{m}_coco_384x288' for m in ('vit_l', 'deit_b', 'swin_b')}
    assert set(CHANGED) == expected


@pytest.mark.parametrize('name', CHANGED)
def test_ablation_config_changes_only_the_model(name):
    entry, base = CHANGED[name]
    ours = Config.fromfile(entry.path).to_dict()
    before = Config.fromfile(entry.path.parent / f'{base}.py').to_dict()
    assert ours.pop('model') != before.pop('model')
    assert ours == before


@pytest.mark.parametrize('name', PARAMETERS)
def test_config_has_the_official_number_of_parameters(name):
    assert zoo.load_entry(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize('name, paper, macs', [
    ('hrformer_t_imagenet_224_nodw', 1.761, None),
    ('hrnet_t_imagenet_224', 2.648, 2.596),
    ('hrnet_s_imagenet_224', 4.996, None),
    ('hrnet_b_imagenet_224', 20.272, None),
])
def test_flops_equal_those_of_the_official_counter(name, paper, macs):
    counted = flops.count(zoo.build_model(load(name)), (224, 224))
    # The figures are known to three decimals.
    assert counted.total('paper-cls') / 1e9 == pytest.approx(paper, abs=1e-3)
    if macs:
        assert counted.total('macs') / 1e9 == pytest.approx(macs, abs=6e-4)


@pytest.mark.parametrize(
    'data', mark_slow(['imagenet_224', 'coco_256x192',
                       'pascal-context_520x520'], 'imagenet_224'))
def test_changes_apply_to_every_block(data):
    shifted = backbone(f'hrformer_t_{data}_nodw_shift')
    blocks = [m for m in shifted.modules() if isinstance(m, Block)]
    assert {b.attn.shift for b in blocks} == {0, 3}
    assert all(b.ffn.dw3x3 is None for b in blocks)
    for model, change, has_conv, shifts in [
            ('swin_t', '', False, {0, 3}), ('swin_t', '_dw', True, {0, 3}),
            ('intrawin_t', '', False, {0}), ('intrawin_t', '_dw', True, {0})]:
        swin = backbone(f'{model}_{data}{change}')
        blocks = [m for m in swin.modules() if isinstance(m, Block)]
        assert len(blocks) == 12
        assert {b.attn.shift for b in blocks} == shifts
        assert all(hasattr(b.ffn, 'dw3x3') == has_conv for b in blocks)
    for size in 'tsb':
        net = backbone(f'hrnet_{size}_{data}')
        assert not any(isinstance(m, Block) for m in net.modules())


TUNED = [n for n in CHANGED if '_imagenet_' not in n and '384x288' not in n]


# Of those that load weights one for HRFormer and one for Swin.
@pytest.mark.parametrize(
    'name', mark_slow(TUNED, 'hrformer_t_coco_256x192_nodw',
                      'swin_t_coco_256x192_dw', 'hrnet_s_coco_256x192',
                      'hrnet_b_coco_256x192'))
def test_config_starts_from_the_imagenet_config_with_the_same_change(
        name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load(name).model.backbone
    model, size, _, _, *change = name.split('_')
    source = '_'.join([model, size, 'imagenet_224', *change])
    assert cfg.init_cfg.checkpoint == f'{source}.pth'
    if '_b_' in name or '_s_' in name:
        return  # as T, only larger
    torch.manual_seed(0)
    trained = zoo.build_model(load(source), 'cpu').state_dict()
    torch.save(dict(state_dict=trained), f'{source}.pth')
    ours = zoo.build_model(load(name), 'cpu').backbone
    ours.init_weights()
    for key, value in ours.named_parameters():
        if 'backbone.' + key in trained:
            assert torch.equal(value, trained['backbone.' + key]), key
        else:  # norms of maps that classification does not have
            assert re.match(r'norm\d\.', key)


def shrink(model):
    """Give a config for COCO a network of a few thousand parameters."""
    options, channels = SMALL_BACKBONES[model.backbone.type]
    model.backbone.update(options)
    model.head.in_channels = channels


@pytest.mark.parametrize('name', ['vit_l', 'deit_b', 'swin_b'])
def test_weights_of_mmpretrain_are_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load(f'{name}_coco_384x288')
    shrink(cfg.model)
    trained = zoo.build_model(cfg, 'cpu')
    for p in trained.parameters():
        torch.nn.init.normal_(p)
    (tmp_path / 'weights').mkdir()
    scheme, _, name = cfg.model.backbone.init_cfg.checkpoint.partition('://')
    assert scheme == 'hrformer_mm'
    file = tmp_path / 'weights' / name
    torch.save(dict(state_dict=trained.state_dict()), file)
    ours = zoo.build_model(cfg, 'cpu').backbone
    ours.init_weights()
    for key, value in trained.backbone.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    file.unlink()
    with pytest.raises(FileNotFoundError, match='weights/.*init_cfg=None'):
        zoo.build_model(cfg, 'cpu').backbone.init_weights()


@pytest.mark.parametrize(
    'name', mark_slow(names('cls'), 'swin_t_imagenet_224_dw'))
def test_cls_config_trains_and_evaluates(name, tmp_path):
    write_images(tmp_path / 'imagenet', 'folders')
    runner = run_training(
        tiny_config(f'cls/{name}.py', tmp_path / 'work', tmp_path / 'imagenet',
                    **SMALL_IMAGES))
    scalars = last_scalars(runner)
    assert runner.iter == 2 and math.isfinite(scalars['train/loss'])
    assert 0 <= scalars['val/accuracy/top1'] <= 100


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return write_tiny_coco(tmp_path_factory.mktemp('data') / 'coco')


@pytest.mark.parametrize(
    'name',
    mark_slow(names('pose'), 'hrformer_t_coco_256x192_nodw_shift'))
def test_pose_config_trains_and_evaluates(name, coco, tmp_path):
    cfg = tiny_config(f'pose/{name}.py', tmp_path, coco)
    shrink(cfg.model)
    runner = run_training(cfg)
    scalars = last_scalars(runner)
    assert runner.iter == 2 and math.isfinite(scalars['train/loss'])
    assert 0 <= scalars['val/coco/AP'] <= 1
