# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Baselines compute what their authors' code computes, with its weights."""
import sys

import pytest
import torch
from golden import Golden, distance, sample
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from hrformer_mm import zoo
from hrformer_mm.checkpoints import convert
from hrformer_mm.core.ocr import OCR
from hrformer_mm.registry import MODELS

DPT = 'dpt_hybrid'
POSE = ('pose_hrnet_w32', 'pose_hrnet_w48', 'transpose_h_a6',
        'tokenpose_l_d24', 'prtr_w32')
SEG = ('seg_hrnet_w48_ocr', )
DEFAULT = 'pose_hrnet_w32'  # the others are for the slow run
LAYOUT = dict(
    seg_hrnet_w48_ocr='official-seg', pose_hrnet_w32='hrnet-pose',
    pose_hrnet_w48='hrnet-pose', transpose_h_a6='transpose',
    tokenpose_l_d24='tokenpose', prtr_w32='prtr')  # yapf: disable


def make_case(name, folder):
    """Return a golden file and the config's model, with its weights.

    The official file is loaded as tests and predictions do it.
    """
    pytest.importorskip('mmpose' if name in POSE else 'mmseg')
    if name == DPT:
        pytest.importorskip('timm')
    golden = Golden.read(name)
    path = folder / f'{name}.pth'
    torch.save(golden.state_dict(), path)
    cfg = Config.fromfile(CONFIGS / (
        golden.meta['config'] or 'seg/dpt_hybrid_pascal-context_480x480.py'))
    model = zoo.build_model(cfg, device='cpu').eval()
    load_checkpoint(model, str(path), strict=True)
    path.unlink()
    return name, golden, model


@pytest.fixture(scope='module', params=[
    name if name == DEFAULT else pytest.param(name, marks=pytest.mark.slow)
    for name in SEG + POSE
])
def case(request, tmp_path_factory):
    return make_case(request.param, tmp_path_factory.mktemp('golden'))


def outputs(name, model, x):
    """Outputs under the names of the golden file."""
    maps = model.backbone(x)
    if name in SEG:
        head = model.decode_head
        logits, aux = OCR.forward(head, maps)
        return dict(
            {f'map{i}': m for i, m in enumerate(maps)},
            logits=logits, aux=aux,
            enlarged=head.enlarge(logits, x.shape[-2:]))  # yapf: disable
    if name == DPT:
        (fine, ), (middle, ), *tokens = maps
        joined = [torch.cat([token[:, None], x.flatten(2).mT], 1)
                  for x, token in tokens]
        logits = model.decode_head.predict_by_feat(
            model.decode_head(list(maps)), [dict(img_shape=x.shape[-2:])])
        return dict(stage0=fine, stage1=middle, block8=joined[0],
                    block11=joined[1], logits=logits)
    if model.with_neck:
        maps = model.neck(maps)
    found = model.head(maps)
    if name == 'prtr_w32':
        return dict(zip(('logits', 'coords'), found))
    return dict(heatmaps=found)


def assert_outputs_equal(found, golden):
    assert set(found) == set(golden.meta['outputs'])
    errors = {k: distance(sample(v), golden.arrays[k])
              for k, v in found.items()}  # yapf: disable
    # The authors' DPT differs from itself in float64 by 1.7e-5.
    tolerance = 1e-4 if 'stage0' in found else 5e-6
    assert max(errors.values()) <= tolerance, errors


def test_official_weights_reproduce_official_outputs(case):
    name, golden, model = case
    with torch.no_grad():
        assert_outputs_equal(outputs(name, model, golden.input()), golden)
    found = outputs(name, model, golden.input())  # takes other kernels
    assert_outputs_equal(found, golden)


def test_gradients_equal_the_official_ones_in_float64(case):
    """ReLU makes float32 gradients of the official code differ by 1e-2."""
    assert_gradients_equal(*case)


def assert_gradients_equal(name, golden, model):
    model = model.double()
    x = golden.input().double().requires_grad_()
    golden.scalar(outputs(name, model, x)).backward()
    assert distance(sample(x.grad), golden.arrays['input_grad_f64']) <= 2e-6
    grads = {n: p.grad for n, p in model.named_parameters()}
    if name == DPT:
        from hrformer_mm.models.baselines.dpt import theirs_to_ours
        theirs = {old + n[len(new):]: grad for n, grad in grads.items()
                  for old, new in theirs_to_ours().items()
                  if n.startswith(new)}  # yapf: disable
    else:
        theirs, _ = convert(grads, to=LAYOUT[name])
    norms = golden.arrays['grad_norms_f64'].double()
    has = ~norms.isnan()
    names = [n for n, _, _ in golden.meta['state']]
    found = torch.stack([
        theirs[n].norm() if h else norms.new_zeros(())
        for n, h in zip(names, has)
    ])[has]
    norms = norms[has]
    floor = 0.01 * norms.square().mean().sqrt()
    errors = (found - norms).abs() / norms.clamp(min=floor)
    assert errors.max() <= 2e-6, names[int(errors.argmax())]


@pytest.mark.slow
def test_official_weights_reproduce_official_outputs_of_dpt(tmp_path):
    name, golden, model = make_case(DPT, tmp_path)
    with torch.no_grad():
        found = outputs(name, model, golden.input())
    assert_outputs_equal(found, golden)


@pytest.mark.slow
def test_gradients_of_dpt_equal_the_official_ones_in_float64(tmp_path):
    assert_gradients_equal(*make_case(DPT, tmp_path))


def test_dpt_has_the_number_of_parameters_of_its_authors():
    """Ours and what has no effect: classifier, norm, auxiliary head, unit."""
    pytest.importorskip('mmseg')
    pytest.importorskip('timm')
    from hrformer_mm.models.baselines.dpt import UNUSED
    cfg = Config.fromfile(
        CONFIGS / 'seg/dpt_hybrid_pascal-context_480x480.py')
    ours = sum(p.numel() for p in zoo.build_model(cfg).parameters())
    assert ours == 121_473_403
    unused = sum(
        torch.Size(shape).numel()
        for name, shape, _ in Golden.read(DPT).meta['state']
        if name.startswith(UNUSED)
        and not name.endswith(('running_mean', 'running_var', 'tracked')))
    assert ours + unused == 124_030_110


@pytest.fixture
def hybrid_vit():
    pytest.importorskip('mmseg')
    pytest.importorskip('timm')
    from hrformer_mm.models.baselines.dpt import HybridViT
    return HybridViT


def test_dpt_has_the_backbone_of_timm_with_its_names(hybrid_vit):
    import timm
    with torch.device('meta'):
        theirs = timm.create_model('vit_base_r50_s16_384').state_dict()
        ours = hybrid_vit().state_dict()
    assert len(ours) == 304
    dropped = {'head.weight', 'head.bias', 'norm.weight', 'norm.bias'}
    assert theirs.keys() - ours.keys() == dropped
    assert {k: v.shape for k, v in ours.items()
            } == {k: v.shape for k, v in theirs.items() if k in ours}
    official = {name[len('pretrained.model.'):]: torch.Size(shape)
                for name, shape, _ in Golden.read(DPT).meta['state']
                if name.startswith('pretrained.model.')}  # yapf: disable
    assert official == {k: v.shape for k, v in theirs.items()}


def test_weights_of_imagenet_load_from_the_file_of_timm(
        hybrid_vit, tmp_path, monkeypatch):
    import timm
    from safetensors.torch import save_file
    options = dict(depth=2, embed_dim=32, num_heads=2, img_size=64)
    theirs = timm.create_model('vit_base_r50_s16_384', **options)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'weights').mkdir()
    save_file(theirs.state_dict(),
              tmp_path / 'weights/vit_base_r50_s16_384.safetensors')
    cfg = Config.fromfile(CONFIGS / '_base_/seg/models/dpt_hybrid.py')
    ours = hybrid_vit(hooks=(0, 1), init_cfg=cfg.model.backbone.init_cfg,
                      **options)
    ours.init_weights()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_positions_are_resized_bilinearly(hybrid_vit):
    model = hybrid_vit(hooks=(0, 1), depth=2, embed_dim=32, num_heads=2,
                       img_size=64)
    with torch.no_grad():
        model.pos_embed[0, 1:] = torch.arange(16.)[:, None]
        found = model.positions((8, 2))[0, 1:].unflatten(0, (8, 2))[..., 0]
        assert model.positions((4, 4)) is model.pos_embed
    rows = torch.tensor([0., 1, 3, 5, 7, 9, 11, 12])
    torch.testing.assert_close(found, rows[:, None] + torch.tensor([.5, 2.5]))
    levels = model(torch.rand(2, 3, 100, 70))
    assert [tuple(x.shape[1:]) for x, *_ in levels] == [
        (256, 25, 18), (512, 13, 9), (32, 7, 5), (32, 7, 5)]
    with pytest.raises(ValueError, match='two of the 2 blocks'):
        hybrid_vit(depth=2, hooks=(1, 2))


@pytest.mark.parametrize('name', ['DPTHybrid', 'HybridViT'])
def test_without_timm_dpt_reports_how_to_install_it(name, monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.setitem(sys.modules, 'timm', None)
    monkeypatch.delitem(sys.modules, 'hrformer_mm.models.baselines.dpt',
                        raising=False)
    monkeypatch.delitem(MODELS._module_dict, name, raising=False)
    with pytest.raises(ImportError) as error:
        MODELS.build(dict(type=f'hrformer_mm.{name}'))
    assert str(error.value).startswith(
        f'hrformer_mm.{name} needs timm, which is not installed: pip install '
        "'hrformer-mm[dpt]'")
    assert '\n' not in str(error.value)
