# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer in timm, with the checks of timm's own tests of its models."""
import sys
import warnings
from importlib import import_module

import numpy as np
import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from PIL import Image

from hrformer_mm.checkpoints import convert
from hrformer_mm.zoo import build_model

timm = pytest.importorskip('timm')
integration = import_module('hrformer_mm.timm')
models = import_module('timm.models')

SIZES = {'hrformer_tiny': 18, 'hrformer_small': 32, 'hrformer_base': 78}
ALL = [
    pytest.param(name, marks=[] if name == 'hrformer_tiny' else [
        pytest.mark.slow]) for name in SIZES]  # yapf: disable
IS_NEW = int(timm.__version__[0]) > 0  # has getters and local-dir


@pytest.fixture(scope='module')
def tiny_checkpoint(tmp_path_factory):
    """Return a file of our ImageNet config's model, and the model."""
    torch.manual_seed(0)
    model = build_model(
        Config.fromfile(CONFIGS / 'cls/hrformer_t_imagenet_224.py'), 'cpu')
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=.1)
    path = tmp_path_factory.mktemp('weights') / 'hrt_tiny.pth'
    official, _ = convert(model.state_dict(), to='official-cls')
    torch.save({'model': official}, path)
    return path, model.eval()


@pytest.fixture
def known_folder(tiny_checkpoint, monkeypatch):
    monkeypatch.setenv('HRFORMER_MM_WEIGHTS', str(tiny_checkpoint[0].parent))


def images(size=(3, 64, 64), batch=1):
    return torch.rand(batch, *size, generator=torch.manual_seed(1))


def create(name='hrformer_tiny', **options):
    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


def test_models_are_registered_with_their_pretrained_weights():
    assert set(timm.list_models('hrformer_*')) == set(SIZES)
    assert 'hrformer_small.in1k' in timm.list_models(pretrained=True)


def test_pretrained_model_equals_the_imagenet_config(tiny_checkpoint,
                                                     known_folder):
    _, reference = tiny_checkpoint
    model = create(pretrained=True)
    x = images((3, 57, 64), 2)
    with torch.no_grad():
        assert torch.equal(model(x), reference(x, mode='tensor'))
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        assert torch.equal(pooled, reference.extract_feat(x)[0])


def test_preprocessing_equals_that_of_the_imagenet_config(tiny_checkpoint):
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import TRANSFORMS
    _, reference = tiny_checkpoint
    cfg = Config.fromfile(CONFIGS / 'cls/hrformer_t_imagenet_224.py')
    pixels = np.random.RandomState(0).randint(0, 256, (260, 330, 3), 'uint8')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([
            TRANSFORMS.build(step)
            for step in cfg.test_dataloader.dataset.pipeline[1:]])
        packed = pipeline(dict(
            img=pixels[..., ::-1].copy(), img_shape=(260, 330),
            ori_shape=(260, 330), img_path=''))  # yapf: disable
    expected = reference.data_preprocessor(
        dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]))
    data = timm.data.resolve_data_config({}, model=create())
    transform = timm.data.create_transform(**data, is_training=False)
    found = transform(Image.fromarray(pixels))
    torch.testing.assert_close(found, expected['inputs'][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize('layout', ['ours', 'official-cls', 'mmpose'])
def test_checkpoints_of_all_layouts_load(layout, tiny_checkpoint):
    _, reference = tiny_checkpoint
    weights = reference.state_dict()
    if layout == 'mmpose':  # its ImageNet files have the backbone only
        weights = {k: v for k, v in weights.items()
                   if k.startswith('backbone.')}
    converted, _ = convert(weights, to=layout)
    model = create(features_only=True, out_indices=(0, 3))
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        model.load_state_dict(converted, strict=False)
    x = images()
    with torch.no_grad():
        expected = reference.backbone(x)
        for i, found in zip((0, 3), model(x)):
            torch.testing.assert_close(found, expected[i])


def test_weights_are_adapted_to_channels_and_classes(tiny_checkpoint,
                                                     known_folder):
    _, reference = tiny_checkpoint
    model = create(pretrained=True, in_chans=1, num_classes=5)
    first = reference.backbone.conv1.weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.backbone.conv1.weight, first)
    assert torch.equal(model.neck.final_layer[0].weight,
                       reference.neck.final_layer[0].weight)
    assert model(images((1, 64, 64))).shape == (1, 5)


def test_weights_of_a_backbone_are_for_fine_tuning_only(
        tiny_checkpoint, tmp_path):
    _, reference = tiny_checkpoint
    file = tmp_path / 'backbone.pth'
    torch.save(reference.backbone.state_dict(), file)
    options = dict(pretrained=True, pretrained_cfg_overlay=dict(
        file=str(file)))  # yapf: disable
    with pytest.raises(ValueError, match='backbone only.* num_classes=N'):
        create(**options)
    with pytest.warns(UserWarning, match='representation head'):
        create(num_classes=3, **options)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        create(features_only=True, **options)


def test_other_semantics_of_pose_weights_are_named(tmp_path):
    from hrformer_mm.core.hrformer import HRFormer
    weights = {f'backbone.{k}': v
               for k, v in HRFormer('tiny').state_dict().items()}
    weights['head.final_layer.weight'] = torch.zeros(17, 18, 1, 1)
    weights['head.final_layer.bias'] = torch.zeros(17)
    converted, _ = convert(weights, to='mmpose')
    with pytest.warns(UserWarning, match="upsample='bilinear': pass it to"):
        create(features_only=True).load_state_dict(converted, strict=False)


def test_missing_weights_name_the_page_to_get_them_from(monkeypatch, tmp_path):
    monkeypatch.setenv('HRFORMER_MM_WEIGHTS', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
            FileNotFoundError,
            match='github.com/HRNet/HRFormer.*, or pass pretrained=False$'):
        create(pretrained=True)


@pytest.mark.parametrize('options', [
    dict(output_stride=16), dict(features_only=True, out_indices=(4, )),
    dict(features_only=True, out_indices=5)], ids=str)  # yapf: disable
def test_values_that_the_network_lacks_are_refused(options):
    with pytest.raises(ValueError, match='32|must be'):
        create(**options)


def test_without_timm_the_import_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm.data', None)
    monkeypatch.delitem(sys.modules, 'hrformer_mm.timm')
    with pytest.raises(ImportError, match=r"pip install 'hrformer-mm\[timm\]"):
        import_module('hrformer_mm.timm')


def test_layer_groups_have_the_depths_of_the_openmmlab_backbone():
    from hrformer_mm.models.backbones import HRFormer
    model, backbone = create(), HRFormer('tiny')
    groups = models.group_parameters(
        model, model.group_matcher(coarse=False), reverse=True)
    for name, _ in model.named_parameters():
        depth, _ = backbone.get_layer_depth(name, 'backbone.')
        assert groups[name] == depth, name
    coarse = models.group_parameters(
        model, model.group_matcher(coarse=True), reverse=True)
    assert coarse['backbone.stage2.0.branches.0.0.norm1.weight'] == 2


@pytest.mark.parametrize('name', ALL)
def test_feature_extractor_outputs_the_described_maps(name):
    for options, taken in ((dict(), range(4)), (dict(out_indices=(1, -1)),
                                                (1, 3)),
                           (dict(out_indices=2), (2, 3))):
        model = create(name, features_only=True, in_chans=2, **options)
        info = model.feature_info
        assert info.channels() == [SIZES[name] * 2**i for i in taken]
        assert info.reduction() == [4 * 2**i for i in taken]
        found = model(images((2, 72, 100)))
        assert [m.shape for m in found] == [
            (1, c, -(-72 // r), -(-100 // r))
            for c, r in zip(info.channels(), info.reduction())]
        assert all(m.isfinite().all() for m in found)


@pytest.mark.slow
@pytest.mark.parametrize('name', SIZES)
def test_every_parameter_has_a_gradient(name):
    for checkpointing in (False, True):
        model = create(name, num_classes=42, drop_path_rate=.1).train()
        model.set_grad_checkpointing(checkpointing)
        y = model(images(batch=2))
        y.mean().backward()
        assert y.shape == (2, 42) and y.isfinite().all()
        lacking = [n for n, p in model.named_parameters() if p.grad is None]
        # Stochastic depth may drop a block from the whole batch.
        assert lacking == [] or all('branches' in n for n in lacking)


@pytest.mark.slow
def test_recomputed_blocks_have_equal_gradients():
    grads = []
    for enable in (False, True):
        model = create(num_classes=3)
        model.set_grad_checkpointing(enable)
        model(images()).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', SIZES)
def test_default_cfg_describes_the_model(name):
    model = create(name)
    cfg, names = model.default_cfg, model.state_dict()
    assert f"{cfg['classifier']}.weight" in names
    assert f"{cfg['first_conv']}.weight" in names
    x = images(cfg['input_size'])
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.shape == (1, model.num_features, *cfg['pool_size'])
        assert model(x).shape == (1, cfg['num_classes'])
        assert model.forward_head(features, pre_logits=True).shape == (
            1, model.head_hidden_size)
        model.reset_classifier(7)
        assert model.num_classes == model.get_classifier().out_features == 7
        assert model.forward_head(features).shape == (1, 7)
        model.reset_classifier(0)
        assert model.num_classes == 0
        assert model.forward_head(features).shape == (1, model.num_features)
        model.reset_classifier(0, '')
        assert model.forward_head(features).shape == features.shape
        model.reset_classifier(4, 'catavgmax')
        assert model.head_hidden_size == 2 * model.num_features
        assert model.forward_head(features).shape == (1, 4)
        bare = create(name, num_classes=0, global_pool='')
        assert bare(images()).shape == (1, model.num_features, 2, 2)


@pytest.mark.slow
def test_any_size_is_accepted_and_img_size_does_not_restrict_it():
    model = create(num_classes=3, img_size=224)
    for size in ((32, 32), (33, 95), (128, 50), (224, 224)):
        assert model(images((3, *size))).shape == (1, 3)


@pytest.mark.slow
def test_intermediates_are_the_maps_and_the_features():
    model, x = create(), images()
    with torch.no_grad():
        features, maps = model.forward_intermediates(x)
        assert torch.equal(features, model.forward_features(x))
        assert [m.shape[1] for m in maps] == [
            info['num_chs'] for info in model.feature_info]
        last, = model.forward_intermediates(
            x, indices=1, intermediates_only=True)
        assert torch.equal(last, maps[3])
        assert model.prune_intermediate_layers([0, 2]) == [0, 2]
        found = model.forward_intermediates(
            x, indices=[0, 2], intermediates_only=True)
        assert all(map(torch.equal, found, [maps[0], maps[2]]))
        assert len(model(x)) == 2  # no head is left
    with pytest.raises(ValueError, match='NCHW'):
        model.forward_intermediates(x, output_fmt='NLC')


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['hook', 'fx', 'getter'])
def test_extractors_of_timm_output_the_same_maps(kind):
    if kind == 'getter' and not IS_NEW:
        pytest.skip('this timm has no FeatureGetterNet')
    x = images()
    expected = create(features_only=True)
    weights = expected.backbone.state_dict()
    model = create(features_only=True, feature_cfg=dict(feature_cls=kind),
                   out_indices=(1, 3))
    for key, value in model.state_dict().items():
        if 'backbone.' in key:
            value.copy_(weights[key.rpartition('backbone.')[2]])
    with torch.no_grad():
        found, maps = model(x), expected(x)
    assert model.feature_info.channels() == [36, 144]
    for a, b in zip(found, (maps[1], maps[3])):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize('train', [False, True])
def test_graph_of_torch_fx_has_equal_outputs_and_all_gradients(train):
    model = create(num_classes=3).train(train)
    graph = models.create_feature_extractor(model, ['head.fc'])
    x = images(batch=2)
    y, = graph.train(train)(x).values()
    if not train:
        torch.testing.assert_close(y, model(x))
    y.mean().backward()
    assert all(p.grad is not None for p in graph.parameters())


@pytest.mark.slow
def test_traced_model_has_equal_outputs(tmp_path):
    """torch.jit.script is not supported: windows are padded in Python."""
    model, x = create(num_classes=3), images()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # shapes become constants
        torch.jit.trace(model, x).save(str(tmp_path / 'traced.pt'))
        loaded = torch.jit.load(str(tmp_path / 'traced.pt'))
        torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.slow
def test_optimizers_of_timm_decay_by_layer_and_skip_bias_tables():
    from timm.optim import create_optimizer_v2
    model = create(num_classes=3)
    skipped = model.no_weight_decay()
    assert skipped and all(n.endswith('bias_table') for n in skipped)
    optimizer = create_optimizer_v2(
        model, 'adamw', lr=1e-3, weight_decay=.05, layer_decay=.5)
    scales = {g['lr_scale'] for g in optimizer.param_groups}
    assert len(scales) == 15 and max(scales) == 1
    tables = {id(p) for n, p in model.named_parameters() if n in skipped}
    assert all(group['weight_decay'] == 0 for group in optimizer.param_groups
               if any(id(p) in tables for p in group['params']))


@pytest.mark.slow
@pytest.mark.skipif(not IS_NEW, reason='needs local-dir of timm 1.0')
def test_model_saved_for_the_hub_loads_from_its_folder(tmp_path):
    pytest.importorskip('huggingface_hub')
    from timm.models import save_for_hf
    model = create(num_classes=5)
    save_for_hf(model, tmp_path)
    other = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    x = images()
    assert torch.equal(model(x), other(x))


@pytest.mark.slow
def test_unet_of_segmentation_models_pytorch_trains():
    smp = pytest.importorskip('segmentation_models_pytorch')
    torch.manual_seed(0)
    model = smp.Unet('tu-hrformer_small', encoder_weights=None, classes=2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x = images(batch=2)
    labels = (x.mean(1) > .5).long()
    losses = []
    for _ in range(4):
        y = model(x)
        assert y.shape == (2, 2, 64, 64)
        loss = torch.nn.functional.cross_entropy(y, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in model.encoder.parameters())
