# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Baselines compute what their authors' code computes, with its weights."""
import pytest
import torch
from golden import Golden, distance, sample
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from hrformer_mm import zoo
from hrformer_mm.baselines.hybrid_vit import HybridViT
from hrformer_mm.checkpoints import convert
from hrformer_mm.core.ocr import OCR

DPT = 'dpt_hybrid'
POSE = ('pose_hrnet_w32', 'pose_hrnet_w48', 'transpose_h_a6',
        'tokenpose_l_d24', 'prtr_w32')
SEG = ('seg_hrnet_w48_ocr', )
LAYOUT = dict(
    seg_hrnet_w48_ocr='official-seg', pose_hrnet_w32='hrnet-pose',
    pose_hrnet_w48='hrnet-pose', transpose_h_a6='transpose',
    tokenpose_l_d24='tokenpose', prtr_w32='prtr')  # yapf: disable


def make_case(name, folder):
    """Return a golden file and the config's model, with its weights.

    The official file is loaded as tests and predictions do it.
    """
    pytest.importorskip('mmpose' if name in POSE else 'mmseg')
    golden = Golden.read(name)
    path = folder / f'{name}.pth'
    torch.save(golden.state_dict(), path)
    cfg = Config.fromfile(CONFIGS / (
        golden.meta['config'] or 'seg/dpt_hybrid_pascal-context_480x480.py'))
    model = zoo.build_model(cfg, device='cpu').eval()
    load_checkpoint(model, str(path), strict=True)
    path.unlink()
    return name, golden, model


@pytest.fixture(scope='module', params=SEG + POSE)
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


def test_official_weights_give_official_outputs(case):
    name, golden, model = case
    with torch.no_grad():
        assert_outputs_equal(outputs(name, model, golden.input()), golden)
    found = outputs(name, model, golden.input())  # takes other kernels
    assert_outputs_equal(found, golden)


def test_gradients_are_official_ones_in_float64(case):
    """ReLU makes float32 gradients of the official code differ by 1e-2."""
    assert_gradients_equal(*case)


def assert_gradients_equal(name, golden, model):
    model = model.double()
    x = golden.input().double().requires_grad_()
    golden.scalar(outputs(name, model, x)).backward()
    assert distance(sample(x.grad), golden.arrays['input_grad_f64']) <= 2e-6
    grads = {n: p.grad for n, p in model.named_parameters()}
    if name == DPT:
        from hrformer_mm.baselines.dpt import theirs_to_ours
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


def test_official_weights_give_official_outputs_of_dpt(tmp_path):
    name, golden, model = make_case(DPT, tmp_path)
    with torch.no_grad():
        found = outputs(name, model, golden.input())
    assert_outputs_equal(found, golden)


@pytest.mark.slow
def test_gradients_of_dpt_are_official_ones_in_float64(tmp_path):
    assert_gradients_equal(*make_case(DPT, tmp_path))


def test_dpt_has_the_parameters_that_its_authors_count():
    """Ours and what has no effect: classifier, norm, auxiliary head, unit."""
    pytest.importorskip('mmseg')
    from hrformer_mm.baselines.dpt import UNUSED
    cfg = Config.fromfile(
        CONFIGS / 'seg/dpt_hybrid_pascal-context_480x480.py')
    ours = sum(p.numel() for p in zoo.build_model(cfg).parameters())
    unused = sum(
        torch.Size(shape).numel()
        for name, shape, _ in Golden.read(DPT).meta['state']
        if name.startswith(UNUSED)
        and not name.endswith(('running_mean', 'running_var', 'tracked')))
    assert ours + unused == 124_030_110


@pytest.mark.slow
def test_hybrid_vit_computes_what_timm_s_does():
    """At another size, so with resized positions and uneven padding."""
    timm = pytest.importorskip('timm')
    theirs = timm.create_model('vit_base_r50_s16_384', num_classes=0).eval()
    ours = HybridViT().eval()
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert set(missing.unexpected_keys) == {'norm.weight', 'norm.bias'}
    x = torch.rand(1, 3, 90, 122)
    with torch.no_grad():
        maps = theirs.patch_embed.backbone.stem(x)
        for stage, (mine, ) in zip(theirs.patch_embed.backbone.stages,
                                   ours(x)[:2]):
            maps = stage(maps)
            assert distance(mine, maps) < 1e-5
    x = torch.rand(1, 3, 384, 384)
    with torch.no_grad():
        patches, token = ours(x)[-1]
        joined = torch.cat([token[:, None], patches.flatten(2).mT], 1)
        wanted = theirs.forward_features(x)
        assert distance(theirs.norm(joined), wanted) < 1e-4


def test_positions_are_resized_bilinearly():
    model = HybridViT(dim=32, heads=2, depth=2, hooks=(0, 1), grid=(4, 4),
                      stage_depths=(1, 1, 1))
    with torch.no_grad():
        model.pos_embed[0, 1:] = torch.arange(16.)[:, None]
        found = model.positions((8, 2))[0, 1:].unflatten(0, (8, 2))[..., 0]
    rows = torch.tensor([0., 1, 3, 5, 7, 9, 11, 12])
    torch.testing.assert_close(found, rows[:, None] + torch.tensor([.5, 2.5]))
    levels = model(torch.rand(2, 3, 100, 70))
    assert [tuple(x.shape[1:]) for x, *_ in levels] == [
        (256, 25, 18), (512, 13, 9), (32, 7, 5), (32, 7, 5)]
    with pytest.raises(ValueError, match='two of the 2 blocks'):
        HybridViT(dim=32, heads=2, depth=2, hooks=(1, 2))
