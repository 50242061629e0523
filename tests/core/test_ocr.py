# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The OCR head: arithmetic against the official outputs, losses, memory."""
import pytest
import torch
import torch.nn.functional as F
from helpers import SHARED
from torch import nn
from torch.testing import assert_close

from hrformer_mm.checkpoints import convert
from hrformer_mm.core.hrformer import HRFormer
from hrformer_mm.core.losses import cross_entropy, ohem_cross_entropy
from hrformer_mm.core.ocr import OCR, gather_objects, join_maps

CHANNELS = (4, 8, 16, 32)


def tiny_ocr(**kwargs) -> OCR:
    torch.manual_seed(0)
    args = dict(num_classes=5, channels=16, ocr_channels=8)
    return OCR(CHANNELS, **{**args, **kwargs})


def tiny_maps(height=13, width=9, batch=2):
    """Maps of odd sizes, as crops of 520 have them."""
    rng = torch.Generator().manual_seed(1)
    return [
        torch.randn(
            batch, c, -(-height // 2**i), -(-width // 2**i), generator=rng)
        for i, c in enumerate(CHANNELS)
    ]


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('window', [7, 15])
def test_all_maps_and_logits_equal_those_of_the_official_code(window):
    path = SHARED / f'golden/official_seg_w{window}.pt'
    if not path.exists():
        pytest.skip('the golden files are not part of the repository')
    golden = torch.load(path, weights_only=True)
    arch, want = golden['meta']['arch'], golden['outputs']
    tensors, _ = convert({k: v.float() if v.is_floating_point() else v
                          for k, v in golden['state_dict'].items()})
    model = nn.ModuleDict(
        dict(
            backbone=HRFormer(
                dict(
                    channels=arch['channels'],
                    heads=arch['num_heads'],
                    modules=arch['modules']),
                window_size=window),
            decode_head=OCR(arch['channels'], num_classes=19)))
    model.load_state_dict(tensors)
    model.eval()
    image = golden['input'].float()
    with torch.no_grad():
        maps = model['backbone'](image)
        logits, aux = model['decode_head'](maps)
        enlarged = F.interpolate(
            logits, image.shape[2:], mode='bilinear', align_corners=True)
    got = {f'stage4.{i}': x for i, x in enumerate(maps)}
    got.update(aux=aux, out=logits, out_up=enlarged)
    assert got.keys() == want.keys()
    for name, value in got.items():
        worst = (value - want[name]).abs().max() / want[name].std()
        assert worst <= 1e-4, name


def test_attention_equals_the_papers_formula():
    head, maps = tiny_ocr().eval(), tiny_maps()
    logits, aux = head(maps)
    block, pixels = head.ocr, head.bottleneck(join_maps(maps))
    regions = torch.einsum('bkhw,bchw->bkc',
                           aux.flatten(2).softmax(2).view_as(aux), pixels)
    regions = regions.transpose(1, 2)[..., None]
    query = block.query_project(pixels)
    key, value = block.key_project(regions), block.value_project(regions)
    scores = torch.einsum('bdhw,bdk->bhwk', query, key[..., 0]) / 8**0.5
    context = torch.einsum('bhwk,bdk->bdhw', scores.softmax(-1), value[..., 0])
    joined = torch.cat([block.out_project(context), pixels], 1)
    assert_close(logits, head.conv_seg(block.bottleneck(joined)))


def test_region_representations_average_the_most_likely_pixels():
    pixels, logits = torch.randn(1, 3, 4, 5), torch.zeros(1, 2, 4, 5)
    logits[0, 1, 2, 3] = 100.
    objects = gather_objects(pixels, logits)
    assert_close(objects[0, 0], pixels.mean((0, 2, 3)))
    assert_close(objects[0, 1], pixels[0, :, 2, 3])


def test_one_logit_yields_two_region_representations():
    pixels, logits = torch.randn(1, 3, 4, 5), torch.randn(1, 1, 4, 5)
    both = torch.cat([-logits, logits], 1)
    assert_close(
        gather_objects(pixels, logits), gather_objects(pixels, both))
    assert gather_objects(pixels, logits).shape == (1, 2, 3)


def test_maps_of_any_size_are_concatenated_at_the_finest():
    assert join_maps(tiny_maps(13, 9)).shape == (2, 60, 13, 9)


@pytest.mark.parametrize('groups, kernel_size', [(1, 3), (32, 7)])
def test_v3_has_grouped_convolutions_of_seven(groups, kernel_size):
    head = OCR((32, 64, 128, 256), 19, groups=groups, kernel_size=kernel_size)
    bias_free = 480 * 512 * kernel_size**2 // groups
    assert parameters_of(head.bottleneck.conv) == bias_free + 512
    maps = [torch.rand(1, c, 8, 8) for c in (32, 64, 128, 256)]
    assert head.eval()(maps)[0].shape == (1, 19, 8, 8)


def test_v3_of_base_has_the_official_parameters():
    with torch.device('meta'):
        channels = (78, 156, 312, 624)
        net = [HRFormer('base', window_size=15),
               OCR(channels, 19, kernel_size=7, groups=2)]
    assert sum(map(parameters_of, net)) == 74_766_720


def test_every_parameter_gets_a_gradient_and_inputs_stay():
    head, maps = tiny_ocr(), tiny_maps()
    copies = [x.clone() for x in maps]
    logits, aux = head(maps)
    (logits.square().mean() + aux.square().mean()).backward()
    assert all(p.grad is not None for p in head.parameters())
    assert_close(maps, copies, rtol=0, atol=0)


@pytest.mark.parametrize('kwargs', [
    dict(kernel_size=4),
    dict(kernel_size=7, groups=7),
    dict(groups=4, aux_channels=18),
])
def test_invalid_layers_are_rejected(kwargs):
    with pytest.raises(ValueError, match='groups must divide'):
        tiny_ocr(**kwargs)


def test_the_head_compiles_as_one_graph():
    head, maps = tiny_ocr().eval(), tiny_maps()
    compiled = torch.compile(head, fullgraph=True, backend='eager')
    assert_close(compiled(maps), head(maps))


def test_mixed_precision_trains_without_nan():
    head, maps = tiny_ocr(), tiny_maps()
    labels = torch.randint(0, 5, (2, 13, 9))
    with torch.autocast('cpu', torch.bfloat16):
        logits, aux = head(maps)
        loss = ohem_cross_entropy(logits, labels) + cross_entropy(aux, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in head.parameters())


def restated_ohem(logits, labels, thresh, min_kept, weights, ignored):
    """The definition, pixel by pixel."""
    probs = logits.double().softmax(1).movedim(1, -1).flatten(0, -2)
    labels, pixels = labels.flatten(), []
    for i, (p, label) in enumerate(zip(probs, labels.tolist())):
        if label != ignored:
            pixels.append((p[label].item(), -weights[label] * p[label].log()))
        elif i == 0:
            pixels.append((p[0].item(), torch.tensor(0.)))
    ranked = sorted(p for p, _ in pixels)
    bound = max(ranked[min(min_kept, len(ranked) - 1)], thresh)
    kept = [loss for p, loss in pixels if p < bound]
    return sum(kept) / len(kept) if kept else torch.tensor(0.)


def random_pixels(seed: int, ignored: float, ties: bool):
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 4, 6, 5, generator=rng)
    labels = torch.randint(0, 4, (2, 6, 5), generator=rng)
    if ties:
        logits[:, :, 3:] = logits[:, :, :3]
        labels[:, 3:] = labels[:, :3]
    labels[torch.rand(2, 6, 5, generator=rng) < ignored] = 255
    return logits, labels


@pytest.mark.parametrize('ties', [False, True], ids=['distinct', 'ties'])
@pytest.mark.parametrize('ignored', [0., 0.3, 0.9])
@pytest.mark.parametrize('min_kept', [0, 7, 20, 60, 100000])
@pytest.mark.parametrize('thresh', [0.05, 0.7, 0.9])
def test_hard_pixels_equal_those_of_the_definition(thresh, min_kept, ignored,
                                                   ties):
    weights = [0.8, 1.1, 1.0, 0.5]
    for seed in range(3):
        logits, labels = random_pixels(seed, ignored, ties)
        labels[0, 0, 0] = 255 if seed == 1 else 2
        got = ohem_cross_entropy(logits, labels, thresh, min_kept,
                                 torch.tensor(weights))
        want = restated_ohem(logits, labels, thresh, min_kept, weights, 255)
        assert_close(got.double(), want.double(), rtol=1e-5, atol=1e-6)


def test_only_hard_pixels_have_a_gradient():
    logits, labels = random_pixels(0, 0.3, False)
    logits.requires_grad_()
    ohem_cross_entropy(logits, labels, 0.7, 5).backward()
    probs = logits.softmax(1).gather(1, labels.clamp(max=3)[:, None])[:, 0]
    moved = logits.grad.abs().sum(1) > 0
    assert_close(moved, (labels != 255) & (probs < 0.7))


def test_a_batch_without_labelled_pixels_has_zero_loss():
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    labels = torch.full((1, 3, 3), 255)
    for loss in (cross_entropy(logits, labels),
                 ohem_cross_entropy(logits, labels),
                 ohem_cross_entropy(50. * F.one_hot(torch.tensor([[[1]]]), 4)
                                    .movedim(-1, 1), torch.tensor([[[1]]]))):
        assert loss == 0
    (cross_entropy(logits, labels) +
     ohem_cross_entropy(logits, labels)).backward()
    assert not logits.grad.any()


@pytest.mark.parametrize('weights', [None, [0.8, 1.1, 1.0, 0.5]])
def test_cross_entropy_equals_that_of_torch(weights):
    logits, labels = random_pixels(0, 0.3, False)
    weights = weights and torch.tensor(weights)
    assert_close(
        cross_entropy(logits, labels, weights),
        F.cross_entropy(logits, labels, weights, ignore_index=255))


def test_one_channel_stands_for_two_classes():
    logits, labels = random_pixels(0, 0.3, False)
    labels[labels < 255] %= 2
    one = logits[:, :1]
    known = labels < 255
    assert_close(
        cross_entropy(one, labels),
        F.binary_cross_entropy_with_logits(one[:, 0][known],
                                           labels[known].float()))


def test_an_unlabelled_first_pixel_counts_in_the_mean():
    logits = torch.zeros(1, 2, 1, 2)
    labels = torch.tensor([[[255, 1]]])
    alone = ohem_cross_entropy(logits[..., 1:], labels[..., 1:])
    assert_close(ohem_cross_entropy(logits, labels), alone / 2)


def test_losses_compile_as_one_graph():
    logits, labels = random_pixels(0, 0.3, False)
    for loss in (cross_entropy, ohem_cross_entropy):
        compiled = torch.compile(loss, fullgraph=True, backend='eager')
        assert_close(compiled(logits, labels), loss(logits, labels))
