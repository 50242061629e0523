# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Baselines compute what their authors' code computes, with its weights."""
import pytest
import torch
from golden import Golden, distance, sample
from helpers import CONFIGS
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from hrformer_mm import zoo
from hrformer_mm.checkpoints import convert
from hrformer_mm.core.ocr import OCR

POSE = ('pose_hrnet_w32', 'pose_hrnet_w48', 'transpose_h_a6',
        'tokenpose_l_d24', 'prtr_w32')
SEG = ('seg_hrnet_w48_ocr', )
LAYOUT = dict(
    seg_hrnet_w48_ocr='official-seg', pose_hrnet_w32='hrnet-pose',
    pose_hrnet_w48='hrnet-pose', transpose_h_a6='transpose',
    tokenpose_l_d24='tokenpose', prtr_w32='prtr')  # yapf: disable


@pytest.fixture(scope='module', params=SEG + POSE)
def case(request, tmp_path_factory):
    """A golden file and the config's model, with the weights of the former.

    The official file is loaded as tests and predictions do it.
    """
    name = request.param
    pytest.importorskip('mmseg' if name in SEG else 'mmpose')
    golden = Golden.read(name)
    path = tmp_path_factory.mktemp('golden') / f'{name}.pth'
    torch.save(golden.state_dict(), path)
    cfg = Config.fromfile(CONFIGS / golden.meta['config'])
    model = zoo.build_model(cfg, device='cpu').eval()
    load_checkpoint(model, str(path), strict=True)
    path.unlink()
    return name, golden, model


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
    assert max(errors.values()) <= 5e-6, errors


def test_official_weights_give_official_outputs(case):
    name, golden, model = case
    with torch.no_grad():
        assert_outputs_equal(outputs(name, model, golden.input()), golden)
    found = outputs(name, model, golden.input())  # takes other kernels
    assert_outputs_equal(found, golden)


def test_gradients_are_official_ones_in_float64(case):
    """ReLU makes float32 gradients of the official code differ by 1e-2."""
    name, golden, model = case
    model = model.double()
    x = golden.input().double().requires_grad_()
    golden.scalar(outputs(name, model, x)).backward()
    assert distance(sample(x.grad), golden.arrays['input_grad_f64']) <= 2e-6
    grads = {n: p.grad for n, p in model.named_parameters()}
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
