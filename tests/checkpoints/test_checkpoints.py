# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Key names of all layouts, conversion both ways, loading into models."""
import logging
import math
from collections import OrderedDict

import foreign
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import load_state_dict as mm_load_state_dict
from torch import nn

from hrformer_mm.checkpoints import (
    convert,
    infer_arguments,
    interpolate_table,
    load_pretrained,
)
from hrformer_mm.checkpoints.keymap import BACKBONE, LAYOUTS
from hrformer_mm.core.arch import ARCHS
from hrformer_mm.core.cls_head import RepresentationHead
from hrformer_mm.core.hrformer import HRFormer as CoreHRFormer
from hrformer_mm.core.ocr import OCR
from hrformer_mm.models.backbones import HRFormer

FOREIGN = ('mmpose', 'mmpose-0.x', 'mmpose-sequential', 'mmseg', 'mmseg-early',
           'official-cls', 'official-pose', 'official-seg')
BACKBONES = ('mmseg', 'mmseg-early')  # without a head
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def maps_of(task):
    return (0, 1, 2, 3) if task in ('cls', 'seg') else (0, )


class Model(nn.Module):
    """Our modules under the names that the frameworks' models give them."""

    def __init__(self, task, arch, window=7, classes=0, version=2, **kwargs):
        super().__init__()
        c = arch.channels
        self.backbone = HRFormer(
            arch,
            window_size=window,
            out_indices=maps_of(task),
            upsample='bilinear' if task == 'pose' else 'nearest',
            **kwargs)
        if task == 'pose':
            self.head = nn.ModuleDict(
                dict(final_layer=nn.Conv2d(c[0], classes or 17, 1)))
        elif task == 'cls':
            self.neck = RepresentationHead(c)
            self.head = nn.ModuleDict(
                dict(fc=nn.Linear(2048, classes or 1000)))
        elif task == 'seg':
            v3 = dict(kernel_size=7, groups=math.gcd(sum(c), 512))
            self.decode_head = OCR(c, classes or 19,
                                   **(v3 if version == 3 else {}))


def task_of(layout):
    if layout in BACKBONES:
        return 'backbone'
    return layout.partition('-')[2] if 'official' in layout else 'pose'


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


@pytest.fixture(scope='module')
def tiny():
    """A state dict of each layout, of one and the same size."""
    torch.manual_seed(0)
    return {
        layout: foreign.random_tensors(foreign.names(layout, foreign.TINY))
        for layout in FOREIGN
    }


@pytest.fixture
def log(caplog):
    """Lines of mmengine's logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


PUBLISHED = {
    ('official-cls', 'tiny', 7, 2): 8_035_820,
    ('official-cls', 'small', 7, 2): 13_544_882,
    ('official-cls', 'base', 7, 2): 50_320_098,
    ('official-pose', 'small', 7, 2): 7_746_779,
    ('official-pose', 'base', 7, 2): 43_211_777,
    ('official-seg', 'small', 7, 2): 13_523_856,
    ('official-seg', 'base', 7, 2): 56_032_512,
    ('official-seg', 'base', 15, 2): 56_196_480,
    ('official-seg', 'base', 15, 3): 74_766_720,
}


@pytest.mark.parametrize('layout, arch, window, version', PUBLISHED)
def test_foreign_tensor_lists_have_the_published_number_of_parameters(
        layout, arch, window, version):
    buffers = ('running_mean', 'running_var', 'num_batches_tracked', 'index')
    named = foreign.names(layout, ARCHS[arch], window, version=version)
    count = sum(math.prod(s) for k, s in named if not k.endswith(buffers))
    assert count == PUBLISHED[layout, arch, window, version]


REAL = [*((layout, 7, 2) for layout in FOREIGN), ('official-seg', 15, 2),
        ('official-seg', 7, 3), ('official-seg', 15, 3)]  # yapf: disable


@pytest.mark.parametrize('layout, window, version, arch', [
    (*case, arch) if arch == 'tiny' or case == ('official-pose', 7, 2) else
    pytest.param(*case, arch, marks=pytest.mark.slow)
    for case in REAL for arch in ARCHS
])
def test_a_full_size_model_of_any_layout_loads_without_missing_keys(
        layout, window, version, arch):
    named = foreign.names(layout, ARCHS[arch], window, version=version)
    weights = foreign.random_tensors(named, torch.bfloat16)
    with torch.device('meta'):
        model = Model(task_of(layout), ARCHS[arch], window, version=version)
    model.load_state_dict(weights, strict=True, assign=True)
    own = model.state_dict()
    assert not any(v.is_meta for v in own.values())
    for ours, theirs in (('layer1.0.bn2.running_var', ) * 2,
                         ('stage4.1.fuse_layers.0.3.0.weight', ) * 2):
        root = LAYOUTS[layout].root
        assert torch.equal(own[BACKBONE + ours], weights[root + theirs])


@pytest.mark.parametrize('layout', FOREIGN)
def test_converting_to_ours_and_back_changes_nothing(tiny, layout):
    ours, report = convert(tiny[layout])
    assert report.source == layout
    assert not report.missing and not report.unexpected
    assert not any(k.endswith('relative_position_index') for k in ours)
    # Official pose tables have no effect but are kept for the way back.
    back, report = convert(ours, to=layout)
    assert_same(back, tiny[layout])
    assert not report.dropped and not report.unexpected


@pytest.mark.parametrize('layout', FOREIGN)
def test_our_key_names_equal_those_of_our_modules(tiny, layout):
    ours, _ = convert(tiny[layout])
    own = Model(task_of(layout), foreign.TINY).state_dict()
    assert {
        k: v.shape
        for k, v in ours.items()
    } == {
        k: v.shape
        for k, v in own.items()
    }


def test_our_model_has_equal_outputs_after_every_round_trip(tiny):
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 48)
    first, second = (Model('seg', foreign.TINY).eval() for _ in range(2))
    first.load_state_dict(tiny['official-seg'])
    for to in ('official-seg', ):
        second.load_state_dict(convert(first.state_dict(), to=to)[0])
        maps = [m.backbone(x) for m in (first, second)]
        for a, b in zip(*maps):
            assert torch.equal(a, b)
        for a, b in zip(*(m.decode_head(maps[0]) for m in (first, second))):
            assert torch.equal(a, b)


@given(
    layout=st.sampled_from(FOREIGN),
    wrappers=st.lists(
        st.sampled_from(['module.', 'model.', 'ema_model.', '_orig_mod.']),
        max_size=3),
    container=st.sampled_from(
        [(), ('state_dict', ), ('model', ), ('ema_state_dict', ),
         ('model', 'state_dict')]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31))  # yapf: disable
@settings(max_examples=40, deadline=None)
def test_wrappers_containers_types_and_order_do_not_matter(
        tiny, layout, wrappers, container, dtype, seed):
    plain = {
        k: v.to(dtype) if v.is_floating_point() else v
        for k, v in tiny[layout].items()
    }
    names = list(plain)
    order = torch.randperm(
        len(names), generator=torch.Generator().manual_seed(seed))
    wrapped = {''.join(wrappers) + names[i]: plain[names[i]] for i in order}
    for key in reversed(container):
        wrapped = {key: wrapped, 'epoch': 3, 'optimizer': {'state': {}}}
    ours, report = convert(wrapped)
    assert report.source == layout and not report.unexpected
    assert_same(ours, convert(plain)[0])


@given(st.sampled_from(FOREIGN), st.sampled_from(FOREIGN))
@settings(max_examples=36, deadline=None)
def test_the_backbone_is_unchanged_by_any_chain_of_layouts(
        tiny, first, second):
    tensors, _ = convert(tiny[first], to=second, arch=foreign.TINY)
    back, report = convert(tensors)
    assert not report.unexpected
    expected = convert(tiny[first])[0]
    no_tables = first == 'official-pose'  # they have no effect there
    for name, value in expected.items():
        if name.startswith(BACKBONE) and not (no_tables
                                              and name.endswith('bias_table')):
            assert torch.equal(back[name], value), name


@pytest.mark.parametrize('a, b, recognised', [
    ('.attn.attn.proj.', '.attn.attn.out_proj.', 'mmseg'),
    ('.ffn.', '.mlp.', 'mmpose')])  # yapf: disable
def test_ports_with_mixed_key_names_load(tiny, a, b, recognised):
    mixed = {k.replace(a, b): v for k, v in tiny['mmpose'].items()}
    ours, report = convert(mixed)
    assert report.source == recognised
    assert_same(ours, convert(tiny['mmpose'])[0])


def test_old_mmpose_weights_without_index_load_without_bias():
    weights = foreign.random_tensors(
        foreign.names('mmpose', foreign.TINY, tables=False))
    assert convert(weights)[1].semantics['rel_pos_bias'] is False
    model = Model('pose', foreign.TINY, rel_pos_bias=False)
    model.load_state_dict(weights)
    with pytest.raises(RuntimeError, match='bias_table'):
        Model('pose', foreign.TINY).load_state_dict(weights)


def test_weights_without_bias_get_zero_tables_for_the_official_code():
    weights = foreign.random_tensors(
        foreign.names('mmpose', foreign.TINY, tables=False))
    with pytest.raises(ValueError, match='heads'):
        convert(weights, to='official-pose')
    there, report = convert(weights, to='official-pose', arch=foreign.TINY)
    expected = dict(foreign.names('official-pose', foreign.TINY))
    assert {k: tuple(v.shape) for k, v in there.items()} == expected
    tables = [v for k, v in there.items() if k.endswith('bias_table')]
    assert len(tables) == len([k for k in report.added if 'table' in k])
    assert not any(t.any() for t in tables)


def test_unused_bias_tables_are_not_converted_to_mmpose(tiny):
    there, _ = convert(tiny['official-pose'], to='mmpose')
    expected = dict(foreign.names('mmpose', foreign.TINY, tables=False))
    assert {k: tuple(v.shape) for k, v in there.items()} == expected


def official_interpolation(table, window):
    """As the official segmentation code enlarges its pretrained tables."""
    length, heads = table.shape
    old, new = int(length**0.5), 2 * window - 1
    resized = F.interpolate(
        table.permute(1, 0).view(1, heads, old, old),
        size=(new, new), mode='bilinear')  # yapf: disable
    return resized.view(heads, new * new).permute(1, 0)


@given(
    st.integers(1, 16), st.sampled_from([(7, 15), (7, 13), (15, 7), (7, 7)]),
    st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_bias_tables_are_interpolated_as_in_the_official_code(
        heads, windows, seed):
    old, new = windows
    table = torch.randn(
        (2 * old - 1)**2, heads, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(
        interpolate_table(table, new), official_interpolation(table, new))


def test_weights_load_into_another_window_size(tiny, log):
    model = Model('cls', foreign.TINY, window=(15, 13, 7, 7))
    model.load_state_dict(tiny['official-cls'])
    name = 'stage4.0.branches.0.0.attn.attn.relative_position_bias_table'
    assert torch.equal(model.state_dict()[BACKBONE + name],
                       official_interpolation(tiny['official-cls'][name], 15))
    # A block in each of the four modules, in each of the first two branches.
    assert ' 8 interpolated' in log.text


def test_a_bias_table_that_fits_no_window_size_is_rejected():
    with pytest.raises(ValueError, match='168, 2'):
        interpolate_table(torch.rand(168, 2), 7)


@pytest.mark.parametrize('layout', FOREIGN)
def test_a_bare_backbone_loads_whole_models_of_any_layout(tiny, layout):
    maps = maps_of(task_of(layout))
    backbone = HRFormer(foreign.TINY, out_indices=maps)
    backbone.load_state_dict(tiny[layout])
    ours = convert(tiny[layout])[0]
    assert_same(backbone.state_dict(), {
        k[len(BACKBONE):]: v for k, v in ours.items()
        if k.startswith(BACKBONE)})  # yapf: disable


def test_weights_for_four_output_maps_load_into_a_model_with_one(tiny, log):
    model = Model('pose', foreign.TINY)
    before = model.head['final_layer'].weight.clone()
    mm_load_state_dict(model, OrderedDict(tiny['official-cls']))
    name = 'stage4.0.fuse_layers.0.3.0.weight'
    assert torch.equal(model.state_dict()[BACKBONE + name],
                       tiny['official-cls'][name])
    assert torch.equal(model.head['final_layer'].weight, before)
    assert 'unexpected key' not in log.text  # the head of the other task


def test_weights_for_one_output_map_do_not_load_into_a_model_with_four(tiny):
    model = Model('seg', foreign.TINY)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match='missing') as error:
        mm_load_state_dict(model, OrderedDict(tiny['official-pose']))
    assert '\n' not in str(error.value) and 'strict=False' in str(error.value)
    assert_same(model.state_dict(), before)


def test_weights_of_another_size_are_rejected_before_anything_is_copied(tiny):
    arch = foreign.TINY.__class__((8, 8, 12, 16), (1, 2, 3, 4), (1, 2, 1), 1)
    model = Model('pose', arch)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match='another shape') as error:
        model.load_state_dict(tiny['official-pose'], strict=False)
    assert '\n' not in str(error.value)
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize('state_dict',
                         [{
                             'backbone.conv1.weight': torch.rand(64, 3, 7, 7)
                         }, {
                             'features.0.weight': torch.rand(3)
                         }, {
                             'state_dict': {
                                 'layer1.0.conv1.weight': torch.rand(3)
                             }
                         }])
def test_weights_of_another_network_are_rejected(state_dict):
    model = Model('pose', foreign.TINY)
    with pytest.raises(ValueError, match='not the weights of an HRFormer'):
        mm_load_state_dict(model, OrderedDict(state_dict))


odd = st.one_of(
    st.none(), st.integers(), st.text(max_size=3),
    st.builds(torch.zeros, st.lists(st.integers(0, 3), max_size=3)))
names = st.one_of(
    st.integers(0, 3),
    st.sampled_from([
        'state_dict', 'model', 'meta', 'module', 'hrformer_mm', 'truths',
        'stage2.0.fuse_layers.0.1.0.weight',
        'backbone.stage2.0.fuse_layers.0.1.0.weight',
        'stage2.0.branches.0.0.attn.attn.q_proj.weight',
        'stage2.0.branches.0.0.attn.attn.k_proj.weight',
        'stage2.0.branches.0.0.attn.attn.v_proj.weight',
        'stage2.0.branches.0.0.attn.attn.relative_position_bias_table'
    ]))


@given(
    st.recursive(st.dictionaries(names, odd),
                 lambda inner: st.dictionaries(names, st.one_of(odd, inner))),
    st.sampled_from(list(LAYOUTS)))  # yapf: disable
@settings(max_examples=100, deadline=None)
def test_any_content_of_a_file_fails_with_one_line(content, to):
    try:
        infer_arguments(convert(convert(content, to=to)[0])[0])
    except ValueError as error:
        assert '\n' not in str(error)


def test_two_backbones_are_distinguished_by_their_prefix(tiny):
    both = {
        f'{who}.{k}': v
        for who in ('student', 'teacher')
        for k, v in tiny['mmpose'].items()
    }
    with pytest.raises(ValueError, match='student.*teacher'):
        convert(both)
    assert_same(
        convert(both, prefix='teacher.')[0],
        convert(tiny['mmpose'])[0])


def test_a_bare_head_loads_as_it_is():
    model = Model('pose', foreign.TINY)
    head = {
        k: torch.ones_like(v)
        for k, v in model.state_dict().items() if k.startswith('head.')
    }
    model.load_state_dict(head, strict=False)
    assert model.head['final_layer'].weight.eq(1).all()


def test_our_own_checkpoints_load_silently_and_exactly(log):
    model, other = (Model('seg', foreign.TINY) for _ in range(2))
    other.load_state_dict(model.state_dict())
    assert_same(other.state_dict(), model.state_dict())
    assert not log.text


@pytest.mark.parametrize('wrap', ['DataParallel', 'EMA'])
def test_wrapped_models_load_any_layout(tiny, wrap):
    model = Model('pose', foreign.TINY, rel_pos_bias=False)
    if wrap == 'EMA':
        from mmengine.model import ExponentialMovingAverage
        wrapped = ExponentialMovingAverage(model).module  # a deep copy
        wrapped.load_state_dict(tiny['official-pose'])
    else:
        wrapped = nn.DataParallel(model)
        wrapped.load_state_dict({
            f'module.{k}': v
            for k, v in tiny['official-pose'].items()
        })
        wrapped = wrapped.module
    name = 'head.final_layer.weight'
    assert torch.equal(wrapped.state_dict()[name],
                       tiny['official-pose']['keypoint_' + name])


def test_the_loading_hook_is_registered_once_per_model():
    model = Model('pose', foreign.TINY)
    hooks = len(model._load_state_dict_pre_hooks)
    model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)
    assert len(model._load_state_dict_pre_hooks) == hooks == 2  # one guards


def test_other_modules_get_no_loading_hook():

    class Other(BaseModule):

        def __init__(self):
            super().__init__()
            self.backbone = nn.Linear(2, 2)
            self.encoder = HRFormer(foreign.TINY)

    assert not Other()._load_state_dict_pre_hooks


@pytest.mark.parametrize(
    'layout, kwargs, argument',
    [('official-pose', dict(), 'rel_pos_bias=False'),
     ('official-seg', dict(upsample='bilinear'), 'upsample=nearest'),
     ('mmpose', dict(upsample='nearest'), 'upsample=bilinear')])
def test_contradicting_semantics_are_reported_with_the_argument(
        tiny, layout, kwargs, argument, log):
    maps = maps_of(task_of(layout))
    kwargs = {**dict(upsample='bilinear'), **kwargs}
    owner = nn.Module()
    owner.backbone = HRFormer(foreign.TINY, out_indices=maps, **kwargs)
    mm_load_state_dict(owner, OrderedDict(tiny[layout]))
    warnings = [
        r for r in log.records
        if r.levelno == logging.WARNING and 'trained with' in r.message
    ]
    assert len(warnings) == 1
    assert f'model.backbone.{argument}' in warnings[0].message
    assert '\n' not in warnings[0].message


def test_our_checkpoints_record_their_model_semantics(log):
    model = Model('pose', foreign.TINY, rel_pos_bias=True)
    other = Model('pose', foreign.TINY, rel_pos_bias=True)
    other.backbone.upsample = 'nearest'
    other.load_state_dict(model.state_dict())
    assert log.text.count('model.backbone.upsample=bilinear') == 1
    # They continue with the tensors, from layout to layout.
    there = convert(model.state_dict(), to='ours')[0]
    assert convert(there)[1].semantics == dict(
        rel_pos_bias=True, upsample='bilinear', mask_padding=False)


@pytest.mark.parametrize('layout', FOREIGN)
def test_the_architecture_is_inferred_from_tensors(tiny, layout):
    ours = convert(tiny[layout])[0]
    backbone = CoreHRFormer(**infer_arguments(ours))
    assert backbone.arch == foreign.TINY
    assert {
        BACKBONE + k: v.shape
        for k, v in backbone.state_dict().items()
    } == {
        k: v.shape
        for k, v in ours.items() if k.startswith(BACKBONE)
    }


@pytest.mark.parametrize('kwargs', [
    dict(ffn='mlp'), dict(ffn='nodw'), dict(block='conv'),
    dict(window_size=(7, 5, 3, 3), out_indices=(1, 2)),
    dict(in_channels=4)], ids=str)  # yapf: disable
def test_variants_are_inferred_from_tensors(kwargs):
    first = CoreHRFormer(foreign.TINY, **kwargs)
    second = CoreHRFormer(**infer_arguments({
        BACKBONE + k: v
        for k, v in first.state_dict().items()
    }))
    assert {
        k: v.shape
        for k, v in first.state_dict().items()
    } == {
        k: v.shape
        for k, v in second.state_dict().items()
    }


def test_an_incomplete_backbone_cannot_be_inferred(tiny):
    ours = {
        k: v
        for k, v in convert(tiny['mmpose'])[0].items() if 'stage4' not in k
    }
    with pytest.raises(ValueError, match='whole backbone'):
        infer_arguments(ours)


def test_a_report_is_one_line_with_counts_and_first_names(tiny):
    weights = dict(tiny['official-pose'])
    weights.update({f'extra.{i}': torch.zeros(1) for i in range(5)})
    text = str(convert(weights)[1])
    assert '\n' not in text
    assert 'official-pose weights' in text
    assert '5 unexpected (extra.0, extra.1, extra.2, ...)' in text


def save(tensors, tmp_path, **entries):
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=tensors, **entries), path)
    return path


def test_pretrained_fails_unless_the_whole_backbone_is_covered(tiny, tmp_path):
    path = save(tiny['mmpose'], tmp_path)
    cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone = HRFormer(foreign.TINY, init_cfg=cfg)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(RuntimeError, match='are missing'):
        backbone.init_weights()
    assert_same(backbone.state_dict(), before)
    backbone = HRFormer(foreign.TINY, init_cfg=dict(cfg, strict=False))
    backbone.init_weights()
    assert torch.equal(backbone.conv1.weight,
                       tiny['mmpose']['backbone.conv1.weight'])


def test_pretrained_reports_in_one_line(tiny, tmp_path, log):
    path = save(tiny['official-cls'], tmp_path)
    report = load_pretrained(HRFormer(foreign.TINY, out_indices=(0, )), path)
    assert report.matched == len(
        HRFormer(foreign.TINY, out_indices=(0, )).state_dict())
    assert not report.missing and report.dropped
    lines = [r.message for r in log.records]
    assert len(lines) == 1 and 'weights.pth: official-cls' in lines[0]


def test_imagenet_weights_may_use_another_upsampling(tiny, tmp_path, log):
    path = save(tiny['official-cls'], tmp_path)
    load_pretrained(HRFormer(foreign.TINY, upsample='bilinear'), path)
    assert 'trained with' not in log.text
    path = save(tiny['official-seg'], tmp_path)
    load_pretrained(HRFormer(foreign.TINY, upsample='bilinear'), path)
    assert 'model.backbone.upsample=nearest' in log.text


def test_pretrained_selects_one_of_several_models_by_prefix(tiny, tmp_path):
    both = {
        f'{who}.{k}': v
        for who in ('student', 'teacher')
        for k, v in tiny['mmpose'].items()
    }
    backbone = HRFormer(foreign.TINY, out_indices=(0, ))
    load_pretrained(backbone, save(both, tmp_path), prefix='teacher.')
    assert torch.equal(backbone.conv1.weight,
                       tiny['mmpose']['backbone.conv1.weight'])
