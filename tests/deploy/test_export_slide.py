# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Models that are tested in sliding windows are exported with them."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config, ConfigDict
from predicting import write_config
from tool_runs import error_of, tool
from torch import nn

from hrformer_mm.deploy import export
from hrformer_mm.deploy.postprocess import Network, window_starts

ort = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    config, weights = write_config('seg', tmp_path_factory.mktemp('slide'))
    cfg = Config.fromfile(config)
    cfg.model.test_cfg = dict(
        mode='slide', crop_size=(64, 96), stride=(40, 56))
    cfg.dump(config)
    return config, weights


@pytest.mark.parametrize('length, window, stride, wanted', [
    (100, 64, 40, [0, 36]), (64, 64, 40, [0]), (50, 64, 40, [0]),
    (104, 64, 40, [0, 40]), (105, 64, 40, [0, 40, 41]),
])
def test_windows_cover_an_image(length, window, stride, wanted):
    assert window_starts(length, window, stride) == wanted


class Segmentor(nn.Module):
    """A convolution in place of a segmentor of MMSegmentation."""
    test_cfg = ConfigDict(
        mode='slide', crop_size=(64, 96), stride=(40, 56))
    align_corners, out_channels = False, 5

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 7, 4, padding=3)
        self.decode_head = SimpleNamespace(
            align_corners=False, threshold=None, num_classes=5)

    def forward(self, image, data_samples=None, mode='tensor'):
        return self.conv(image)

    def encode_decode(self, image, metas):
        return F.interpolate(self(image), image.shape[2:], mode='bilinear',
                             align_corners=False)

    def slide_inference(self, image):
        from mmseg.models import EncoderDecoder
        with torch.no_grad():
            return EncoderDecoder.slide_inference(
                self, image, [{} for _ in image])


@pytest.mark.parametrize('size', [(100, 150), (64, 96), (50, 70), (130, 90)])
def test_logits_of_windows_equal_those_of_mmseg(size):
    model, image = Segmentor(), torch.randn(2, 3, *size)
    wanted = model.slide_inference(image)
    with torch.no_grad():
        found, = Network(model, 'seg', False)(image)
        labels, = Network(model, 'seg', True)(image)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (labels == wanted.argmax(1)).float().mean() > .999


def test_sliding_windows_are_exported(tmp_path):
    model, shape = Segmentor(), (1, 3, 80, 112)
    path = tmp_path / 'slide.onnx'
    program = export.trace(Network(model, 'seg', True).eval(), shape, {})
    export.write_onnx(program, path, {}, ['labels'], 18, {})
    image = np.random.default_rng(0).standard_normal(shape, 'f4')
    found, = ort.InferenceSession(str(path)).run(None, dict(image=image))
    wanted = model.slide_inference(torch.from_numpy(image)).argmax(1)
    assert (found == wanted.numpy()).mean() > .999
    assert len(np.unique(found)) == 5


@pytest.mark.slow
def test_a_file_with_windows_agrees_with_mmseg(saved, tmp_path):
    path = tmp_path / 'slide.onnx'
    tool('export')([*saved, '--shape', '80', '112', '--post', '--out',
                    str(path)])
    image = np.random.default_rng(0).standard_normal((1, 3, 80, 112), 'f4')
    found, = ort.InferenceSession(str(path)).run(None, dict(image=image))
    model, _ = export.load(Config.fromfile(saved[0]), saved[1])
    with torch.no_grad():
        wanted = model.slide_inference(torch.from_numpy(image), [{}])
    assert (found == wanted.argmax(1).numpy()).mean() > .99


def test_dynamic_sizes_are_rejected_with_the_option_for_whole_images(
        saved, tmp_path, capsys):
    message = error_of(tool('export'), [
        *saved, '--shape', '80', '112', '--dynamic', '--out',
        str(tmp_path / 'a.onnx')], capsys)
    assert 'model.test_cfg.mode=whole' in message
    assert list(tmp_path.iterdir()) == []
