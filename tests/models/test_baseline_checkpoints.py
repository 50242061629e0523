# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checkpoints of the baselines, in the layouts of their authors' code."""
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from mmengine.runner import load_checkpoint
from torch import nn

from hrformer_mm.checkpoints import convert, read_checkpoint
from hrformer_mm.checkpoints.baselines import factors
from hrformer_mm.checkpoints.publish import convert_file
from hrformer_mm.core.ocr import OCR
from hrformer_mm.models.backbones import HRFormer
from hrformer_mm.models.baselines.prtr import PRTR
from hrformer_mm.models.baselines.tokenpose import TokenPose
from hrformer_mm.models.baselines.transpose import TransPose

CHANNELS = (4, 8, 8, 8)
# Names that the code of each project gives to tensors, some of each part.
NAMES = {
    'hrnet-pose': ['conv1.weight', 'stage4.0.fuse_layers.0.3.1.bias',
                   'final_layer.weight', 'final_layer.bias'],
    'hrnet-ocr': [
        'model.conv1.weight', 'model.stage4.0.branches.3.0.bn2.bias',
        'model.conv3x3_ocr.0.bias', 'model.conv3x3_ocr.1.running_var',
        'model.ocr_distri_head.object_context_block.f_pixel.2.weight',
        'model.ocr_distri_head.object_context_block.f_object.3.0.bias',
        'model.ocr_distri_head.conv_bn_dropout.1.0.weight',
        'model.cls_head.bias', 'model.aux_head.0.weight',
        'model.aux_head.1.weight', 'model.aux_head.3.weight'],
    'transpose': ['pos_embedding', 'stage3.0.branches.2.0.conv1.weight',
                  'reduce.weight', 'final_layer.bias',
                  'global_encoder.layers.1.self_attn.in_proj_weight'],
    'tokenpose': [
        'pre_feature.conv1.weight', 'transformer.keypoint_token',
        'transformer.pos_embedding', 'transformer.patch_to_embedding.bias',
        'transformer.transformer2.layers.0.0.fn.fn.to_qkv.weight',
        'transformer.transformer3.layers.1.1.fn.fn.net.3.weight',
        'transformer.mlp_head.1.bias'],
    'prtr': ['backbone.0.body.conv1.weight',
             'backbone.0.body.incre_modules.3.0.conv1.weight',
             'query_embed.weight', 'kpt_embed.layers.1.weight',
             'transformer.decoder.layers.0.multihead_attn.in_proj_bias',
             'transformer.decoder.norm.bias', 'class_embed.weight'],
}  # yapf: disable
UPSAMPLE = dict.fromkeys(NAMES, 'nearest')
UPSAMPLE['hrnet-ocr'] = 'bilinear_aligned'


class Heatmaps(nn.Module):

    def __init__(self, channels):
        super().__init__()
        self.final_layer = nn.Conv2d(channels, 5, 1)

    def forward(self, xs):
        return self.final_layer(xs[0] if isinstance(xs, tuple) else xs)


class First(nn.Module):
    """The neck of a config takes the finest of several maps."""

    def forward(self, xs):
        return super().forward(xs[0])


class TransPoseNeck(First, TransPose):
    pass


class TokenPoseNeck(First, TokenPose):
    pass


class Model(nn.Module):
    """A small model whose parts have the names of the frameworks' models."""

    def __init__(self, layout):
        super().__init__()
        stem = layout in ('transpose', 'tokenpose')
        n = 3 if stem else 4
        arch = dict(channels=CHANNELS[:n], heads=(1, ) * n,
                    modules=(1, ) * (n - 1), blocks=1)  # yapf: disable
        maps = (0, 1, 2, 3) if layout in ('hrnet-ocr', 'prtr') else (0, )
        self.backbone = HRFormer(
            arch, block='conv', out_indices=maps, upsample=UPSAMPLE[layout])
        self.neck = nn.Identity()
        if layout == 'transpose':
            self.neck = TransPoseNeck(4, dim=8, hidden=8, depth=2)
        if layout == 'tokenpose':
            self.neck = TokenPoseNeck(4, 5, (16, 12), (2, 2), dim=12,
                                      hidden=8, depths=(2, 2, 2), heads=2)
        if layout == 'hrnet-ocr':
            self.decode_head = OCR(CHANNELS, 5, 8, 4, aux_channels=28)
        elif layout == 'prtr':
            self.head = PRTR(CHANNELS, 5, dim=8, hidden=8, depth=2, heads=2,
                             queries=7)
        elif layout != 'tokenpose':
            self.head = Heatmaps(8 if layout == 'transpose' else 4)

    def forward(self, x):
        x = self.neck(self.backbone(x))
        head = getattr(self, 'decode_head', getattr(self, 'head', None))
        return x if head is None else head(x)


def random_model(layout, seed):
    """A model in eval mode in which no tensor is degenerate."""
    torch.manual_seed(seed)
    model = Model(layout).eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.is_floating_point():
                x.uniform_(.5, 1.5) if 'var' in name else x.normal_(std=.3)
        if layout == 'hrnet-ocr':  # as wide as theirs, whose kernel is 1x1
            kernel = model.decode_head.aux.conv.conv.weight
            kernel *= F.pad(torch.ones(1, 1, 1, 1), (1, ) * 4)
    return model


def run(model):
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 48)
    with torch.no_grad():
        out = model(x)
    return out if isinstance(out, tuple) else (out, )


@pytest.mark.parametrize('layout', NAMES)
def test_weights_convert_to_the_layout_and_load_from_it(layout, tmp_path):
    model, other = random_model(layout, 1), random_model(layout, 2)
    tensors, report = convert(model.state_dict(), to=layout)
    assert set(NAMES[layout]) <= set(tensors)
    assert not report.missing and not report.unexpected
    again, report = convert(tensors)
    assert report.source == layout
    assert not report.missing and not report.unexpected
    assert report.semantics == dict(upsample=UPSAMPLE[layout])
    torch.save(tensors, tmp_path / 'theirs.pth')
    load_checkpoint(other, str(tmp_path / 'theirs.pth'), strict=True)
    for a, b in zip(run(model), run(other)):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    # There is one way to write them: a second trip changes nothing.
    twice, _ = convert(again, to=layout)
    assert set(twice) == set(tensors)
    for name, value in tensors.items():
        torch.testing.assert_close(twice[name], value, atol=0, rtol=0)


@pytest.mark.parametrize('layout', NAMES)
def test_convert_checkpoint_reads_and_writes_the_layout(layout, tmp_path):
    model = random_model(layout, 1)
    torch.save(model.state_dict(), tmp_path / 'ours.pth')
    for source, target, to in (('ours.pth', 'theirs.pth', layout),
                               ('theirs.pth', 'back.safetensors', 'ours')):
        report = convert_file(tmp_path / source, tmp_path / target, to=to,
                              check=True)
        assert report.semantics == dict(upsample=UPSAMPLE[layout])
    theirs = read_checkpoint(tmp_path / 'theirs.pth')
    assert all(isinstance(v, torch.Tensor) for v in theirs.values())
    other = random_model(layout, 2)
    load_checkpoint(other, str(tmp_path / 'back.safetensors'), strict=True)
    for a, b in zip(run(model), run(other)):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_auxiliary_convolution_of_hrnet_ocr_is_1x1():
    tensors, _ = convert(random_model('hrnet-ocr', 1).state_dict(),
                         to='hrnet-ocr')
    # As their code has it, without biases where ours has some.
    biases = ('model.aux_head.0.bias', 'model.conv3x3_ocr.0.bias')
    theirs = {k: v for k, v in tensors.items() if k not in biases}
    assert theirs['model.aux_head.0.weight'].shape == (28, 28, 1, 1)
    assert not any(k.endswith('f_pixel.0.bias') for k in theirs)
    model = random_model('hrnet-ocr', 2)
    model.load_state_dict(theirs)
    joined = torch.rand(1, 28, 8, 6)
    with torch.no_grad():
        found = model.decode_head.aux(joined)
        get = {k[len('model.aux_head.'):]: v for k, v in theirs.items()
               if k.startswith('model.aux_head.')}.get
        x = F.conv2d(joined, get('0.weight'))
        x = F.batch_norm(x, get('1.running_mean'), get('1.running_var'),
                         get('1.weight'), get('1.bias'))
        x = F.conv2d(x.relu(), get('3.weight'), get('3.bias'))
    torch.testing.assert_close(found, x)


def test_a_wider_auxiliary_convolution_is_not_converted_to_hrnet_ocr():
    model = random_model('hrnet-ocr', 1)
    model.decode_head.aux.conv.conv.weight.data += .1
    with pytest.raises(ValueError, match='is 3x3, that of hrnet-ocr 1x1'):
        convert(model.state_dict(), to='hrnet-ocr')


@pytest.mark.parametrize('source, to, says', [
    ('transpose', 'hrnet-pose', 'does not support'),
    ('transpose', 'mmpose', "'transpose' or 'ours'"),
    ('hrnet-pose', 'transpose', 'neck.layers.*'),
    ('hrnet-pose', 'official-pose', 'an HRNet'),
    ('prtr', 'hrnet-pose', 'head.final_layer.*'),
])
def test_weights_without_a_counterpart_in_the_layout_raise(source, to, says):
    with pytest.raises(ValueError) as error:
        convert(random_model(source, 1).state_dict(), to=to)
    assert says in str(error.value)


@pytest.mark.parametrize('layout, head', [('mmpose', 'head.'),
                                          ('mmpose-0.x', 'keypoint_head.')])
def test_hrnets_of_mmpose_load_and_report_their_upsampling(layout, head):
    model, other = random_model('hrnet-pose', 1), random_model('hrnet-pose', 2)
    theirs = {k.replace('head.', head, 1) if k.startswith('head.') else k: v
              for k, v in dict(model.state_dict()).items()}
    assert convert(theirs)[1].semantics == dict(upsample='nearest')
    other.load_state_dict(theirs)
    assert torch.equal(*(run(m)[0] for m in (model, other)))
    back, _ = convert(model.state_dict(), to=layout)
    assert back.keys() == theirs.keys()


def test_a_damaged_tokenpose_file_fails_with_one_line():
    tensors, _ = convert(random_model('tokenpose', 1).state_dict(),
                         to='tokenpose')
    del tensors['transformer.patch_to_embedding.weight']
    with pytest.raises(ValueError, match='damaged: they lack') as error:
        convert(tensors)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('count, hw', [
    (12, (4, 3)), (24, (6, 4)), (4, (2, 2)), (16, (4, 4)), (192, (16, 12)),
    (3072, (64, 48)), (6912, (96, 72)), (7, (7, 1))])  # yapf: disable
def test_patches_have_approximately_the_aspect_ratio_of_the_crop(count, hw):
    assert factors(count) == hw


def test_the_help_lists_the_layouts_of_baselines():
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/convert_checkpoint.py'), '--help'],
        capture_output=True, text=True, check=True)  # yapf: disable
    assert all(name in done.stdout for name in NAMES)
