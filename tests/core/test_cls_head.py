# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The classification head: counts, arithmetic, MMPretrain's interfaces."""
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CONFIGS, SHARED
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmpretrain import FeatureExtractor, ImageClassificationInferencer

from hrformer_mm.checkpoints import convert
from hrformer_mm.core import ARCHS, HRFormer
from hrformer_mm.core.cls_head import RepresentationHead

# Of the network with 1000 classes: Table 6, and Table 11 for HRNet.
PARAMS = {
    ('tiny', 'transformer'): 8_035_820,
    ('small', 'transformer'): 13_544_882,
    ('base', 'transformer'): 50_320_098,
    ('tiny', 'conv'): 15_597_464,
    ('small', 'conv'): 24_469_416,
    ('base', 'conv'): 85_291_352,
}
ARCH = dict(channels=(4, 8, 8, 8), heads=(1, 2, 2, 2), modules=(1, 1, 1))


def count(*modules):
    return sum(p.numel() for m in modules for p in m.parameters())


def randomise(module):
    """Give norms statistics and weights that matter."""
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            for tensor in (m.weight, m.running_var):
                torch.nn.init.uniform_(tensor, .5, 1.5)
            for tensor in (m.bias, m.running_mean):
                torch.nn.init.normal_(tensor, std=.1)
    return module


def build_classifier(num_classes=3, arch=ARCH, **neck):
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(CONFIGS / '_base_/cls/models/hrformer_t.py').model
    cfg.backbone.arch = dict(arch)
    cfg.neck = dict(cfg.neck, in_channels=arch['channels'], **neck)
    cfg.head.num_classes = num_classes
    cfg.data_preprocessor.num_classes = num_classes
    return MODELS.build(cfg)


@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    return randomise(build_classifier()).eval()


@pytest.mark.parametrize('arch, block', PARAMS)
def test_parameter_counts_equal_the_papers(arch, block):
    with torch.device('meta'):
        backbone = HRFormer(arch, block=block)
        head = RepresentationHead(backbone.arch.channels,
                                  dw_conv=block == 'transformer')
        classifier = torch.nn.Linear(2048, 1000)
    assert count(backbone, head, classifier) == PARAMS[arch, block]


@pytest.mark.parametrize('arch', ARCHS)
def test_every_arch_has_a_parameter_count(arch):
    assert {(arch, 'transformer'), (arch, 'conv')} <= set(PARAMS)


def conv_norm(x, state, conv, norm, **kwargs):
    """A convolution and its norm in eval mode, of a state dict."""
    weight = state[f'{conv}.weight']
    x = F.conv2d(x, weight, state.get(f'{conv}.bias'),
                 padding=weight.shape[-1] // 2,
                 groups=x.shape[1] // weight.shape[1], **kwargs)
    return F.batch_norm(x, *(state[f'{norm}.{name}'] for name in (
        'running_mean', 'running_var', 'weight', 'bias')))


def slow_head(state, xs):
    """The head step by step, by the names of the official code."""
    y = None
    for i, x in enumerate(xs):
        block = f'incre_modules.{i}.0'
        h = x
        for j in (1, 2, 3):
            h = conv_norm(h, state, f'{block}.conv{j}', f'{block}.bn{j}')
            h = F.relu(h) if j < 3 else h
        shortcut = conv_norm(x, state, f'{block}.downsample.0',
                             f'{block}.downsample.1')
        h = F.relu(h + shortcut)
        if y is not None:
            down = f'downsamp_modules.{i - 1}'
            y = conv_norm(y, state, f'{down}.0', f'{down}.1', stride=2)
            h = h + F.relu(conv_norm(y, state, f'{down}.2', f'{down}.3'))
        y = h
    return F.relu(conv_norm(y, state, 'final_layer.0', 'final_layer.1'))


@pytest.mark.parametrize('hw', [(16, 16), (13, 18)])
def test_head_has_the_official_parameter_names(hw):
    torch.manual_seed(0)
    head = randomise(RepresentationHead((4, 8, 8, 8))).eval()
    sizes = [tuple(-(-n // 2**i) for n in hw) for i in range(4)]
    xs = [torch.randn(2, c, *size) for c, size in zip((4, 8, 8, 8), sizes)]
    expected = slow_head(head.state_dict(), xs)
    assert expected.shape == (2, 2048, *sizes[3])
    # float32 noise of sums over at most 1024 channels
    torch.testing.assert_close(head(xs), expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient():
    head = RepresentationHead((4, 8, 8, 8))
    xs = [torch.randn(2, c, 16 >> i, 16 >> i)
          for i, c in enumerate((4, 8, 8, 8))]
    head(xs).square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None] == []


def test_head_needs_four_branches():
    with pytest.raises(ValueError, match='one number for each of 4 branches'):
        RepresentationHead((32, 64))


def test_neck_returns_one_pooled_vector(classifier):
    feats = classifier.extract_feat(torch.randn(2, 3, 96, 64))
    assert isinstance(feats, tuple)
    assert [f.shape for f in feats] == [(2, 2048)]


def test_neck_without_pooling_returns_the_map():
    model = build_classifier(pool=False)
    feats = model.extract_feat(torch.randn(2, 3, 96, 64))
    assert [f.shape for f in feats] == [(2, 2048, 3, 2)]


def test_features_of_all_stages_can_be_extracted(classifier):
    x = torch.randn(1, 3, 64, 64)
    maps = classifier.extract_feat(x, stage='backbone')
    assert [m.shape[1:] for m in maps] == [(4, 16, 16), (8, 8, 8), (8, 4, 4),
                                           (8, 2, 2)]
    pooled, = classifier.extract_feat(x, stage='neck')
    torch.testing.assert_close(
        classifier.extract_feat(x, stage='pre_logits'), pooled)


def test_class_activation_maps_use_the_final_layer(classifier):
    # What Grad-CAM does: the map of a named module and its gradient.
    kept = {}

    def keep(module, args, output):
        output.register_hook(lambda grad: kept.update(grad=grad))
        kept['map'] = output

    layer = dict(classifier.named_modules())['neck.final_layer']
    handle = layer.register_forward_hook(keep)
    x = torch.randn(1, 3, 64, 96)
    logits = classifier.head(classifier.extract_feat(x))
    logits[0, 1].backward()
    handle.remove()
    assert kept['map'].shape == kept['grad'].shape == (1, 2048, 2, 3)
    # A linear classifier after average pooling: the gradient is its weights.
    torch.testing.assert_close(
        kept['grad'].sum((2, 3))[0], classifier.head.fc.weight[1])


@pytest.fixture(scope='module')
def released(classifier, tmp_path_factory):
    """A config, a checkpoint and an image, as a user has them."""
    folder = tmp_path_factory.mktemp('released')
    cfg = Config.fromfile(CONFIGS / 'cls/hrformer_t_imagenet_224.py')
    cfg.model.backbone.arch = ARCH
    cfg.merge_from_dict({
        'model.neck.in_channels': ARCH['channels'],
        'model.head.num_classes': 3,
        'test_dataloader.dataset.pipeline.1.scale': 72,
        'test_dataloader.dataset.pipeline.2.crop_size': 64,
    })
    (folder / 'config.py').write_text(cfg.pretty_text)
    torch.save(
        dict(state_dict=classifier.state_dict(),
             meta=dict(dataset_meta=dict(classes=('ant', 'bee', 'cat')))),
        folder / 'epoch_1.pth')
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    cv2.imwrite(str(folder / 'image.png'), image)
    return [str(folder / n) for n in ('config.py', 'epoch_1.pth', 'image.png')]


def test_mmpretrains_inferencer_returns_the_class_name(released):
    config, weights, image = released
    infer = ImageClassificationInferencer(config, weights, device='cpu')
    result = infer(image)[0]
    assert result['pred_class'] == ('ant', 'bee', 'cat')[result['pred_label']]
    assert result['pred_scores'].sum() == pytest.approx(1.)


def test_mmpretrains_feature_extractor_returns_all_stages(released):
    config, weights, image = released
    extract = FeatureExtractor(config, weights, device='cpu')
    maps = extract(image, stage='backbone')[0]
    assert [m.shape for m in maps] == [(4, 16, 16), (8, 8, 8), (8, 4, 4),
                                       (8, 2, 2)]
    assert extract(image, stage='neck')[0][0].shape == (2048, )
    assert extract(image, stage='pre_logits')[0].shape == (2048, )


def test_mmpretrains_tools_load_official_files(released, classifier, tmp_path):
    config, weights, image = released
    state_dict, _ = convert(classifier.state_dict(), 'official-cls')
    official = tmp_path / 'hrt.pth'
    torch.save(dict(model=state_dict, epoch=299), official)
    theirs, ours = (FeatureExtractor(config, str(path), device='cpu')(
        image, stage='pre_logits')[0] for path in (official, weights))
    torch.testing.assert_close(theirs, ours)


@pytest.mark.skipif(
    not SHARED.exists(), reason='needs the golden files of the project')
@pytest.mark.parametrize('name', ['official_cls', 'official_cls_pad'])
def test_official_outputs_are_reproduced(name):
    golden = torch.load(
        SHARED / 'golden' / f'{name}.pt', weights_only=True)
    arch = golden['meta']['arch']
    model = build_classifier(
        golden['meta']['num_classes'],
        dict(channels=arch['channels'], heads=arch['num_heads'],
             modules=arch['modules']))
    state_dict, report = convert(
        {k: v.float() for k, v in golden['state_dict'].items()})
    model.load_state_dict(state_dict)
    assert report.source == 'official-cls'
    model.eval()
    with torch.no_grad():
        maps = model.backbone(golden['input'].float())
        pooled = model.neck(maps)
        outputs = {f'stage4.{i}': m for i, m in enumerate(maps)}
        outputs.update(pooled=pooled[0], logits=model.head(pooled))
    assert set(outputs) == set(golden['outputs'])
    for key, expected in golden['outputs'].items():
        # The float32 floor is 2e-6 to 3.5e-5 of the standard deviation.
        error = (outputs[key] - expected).abs().max() / expected.std()
        assert error <= 1e-4, (key, error)
