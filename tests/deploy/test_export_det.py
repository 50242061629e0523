# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Detectors of one stage as files; those of two are refused."""
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from helpers import CONFIGS, ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from predicting import smooth
from tool_runs import error_of, tool

from hrformer_mm.core.versions import can_export
from hrformer_mm.deploy.postprocess import Network

pytest.importorskip('mmdet')
from det_data import ARCH  # noqa: E402

NAMES = ('cat', 'dog', 'newt')
ONNX = [pytest.mark.slow, pytest.mark.skipif(
    not can_export(), reason='this torch is too old to export')]


def write_detector(method, folder, **options):
    """A tiny detector of three classes with random weights."""
    cfg = Config.fromfile(
        CONFIGS / f'det/hrformer_s_coco_800x1333_{method}.py')
    cfg.merge_from_dict({
        'model.backbone.arch': ARCH, 'model.backbone.init_cfg': None,
        'model.neck.in_channels': [8, 16, 32, 64],
        'test_dataloader.dataset.metainfo': dict(classes=NAMES), **options})
    if 'bbox_head' in cfg.model:
        cfg.model.bbox_head.num_classes = 3
        # Random weights are not sure of anything.
        cfg.model.test_cfg.update(nms_pre=10**6, score_thr=.012)
    cfg.dump(folder / f'{method}.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model).eval()
    for layer in model.modules():
        if hasattr(layer, 'running_var'):  # or folding would change little
            layer.running_mean.normal_()
            layer.running_var.uniform_(.5, 2)
    for name, weight in model.named_parameters():
        if name.endswith(('conv_cls.weight', 'retina_cls.weight')):
            weight.data.normal_(std=.05)
        if name.endswith(('conv_reg.weight', 'retina_reg.weight')):
            weight.data.normal_(std=.02)
    torch.save(dict(state_dict=model.state_dict()), folder / f'{method}.pth')
    return cfg, model


def predicted(model, image):
    """Boxes, scores and labels of MMDetection."""
    from mmdet.structures import DetDataSample
    sample = DetDataSample(metainfo=dict(
        img_shape=tuple(image.shape[-2:]), scale_factor=(1., 1.)))
    with torch.no_grad():
        found = model.predict(image, [sample])[0].pred_instances
    return found.bboxes, found.scores, found.labels


def selected(model, boxes, scores):
    """The same after the network of a file."""
    from mmcv.ops import batched_nms
    test = model.test_cfg
    rows, labels = (scores > test.score_thr).nonzero(as_tuple=True)
    best, keep = batched_nms(boxes[rows], scores[rows, labels], labels,
                             test.nms)
    best, keep = best[:test.max_per_img], keep[:test.max_per_img]
    return best[:, :4], best[:, 4], labels[keep]


@pytest.mark.parametrize('method, options', [
    ('retinanet', {}), ('fcos', {}), pytest.param('fcos', {
        'model.bbox_head.norm_on_bbox': True,
        'model.bbox_head.centerness_on_reg': True}, marks=pytest.mark.slow),
    pytest.param('retinanet', {'model.bbox_head.loss_cls': dict(
        _delete_=True, type='CrossEntropyLoss')}, marks=pytest.mark.slow),
], ids=('retinanet', 'fcos', 'fcos-norm', 'softmax'))
def test_decoded_boxes_are_those_of_mmdetection(method, options, tmp_path):
    _, model = write_detector(method, tmp_path, **options)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        boxes, scores = Network(model, 'det', True)(images)
    assert boxes.shape == (2, scores.shape[1], 4) and scores.shape[2] == 3
    for i in range(2):
        wanted = predicted(model, images[i:i + 1])
        found = selected(model, boxes[i], scores[i])
        assert len(wanted[0]) > 3
        for a, b, atol in zip(found, wanted, (.05, 1e-4, 0)):  # pixels
            torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.mark.parametrize('method, shape, says', [
    ('faster-rcnn', '64 96',
     'FasterRCNN cannot be exported: it does not predict one box'),
    ('fcos', '64 100', 'multiples of 32 for this model, got (64, 100)')])
def test_detectors_that_cannot_be_exported_are_refused(
        method, shape, says, tmp_path, capsys):
    pytest.importorskip('onnxscript')
    write_detector(method, tmp_path)
    before = {*tmp_path.iterdir()}
    message = error_of(tool('export'), [
        tmp_path / f'{method}.py', tmp_path / f'{method}.pth', '--shape',
        *shape.split()], capsys)
    assert says in message and {*tmp_path.iterdir()} == before


@pytest.mark.parametrize('method, options, outputs', [
    pytest.param(*case, marks=ONNX, id=f'{case[0]} {case[1]}') for case in (
        ('retinanet', '--post --dynamic --check', 2),
        ('retinanet', '--dynamic --opset 17', 10),
        ('fcos', '--post --half', 2), ('fcos', '', 15),
        ('fcos', '--post --dynamic --format torch-export', 2))])
def test_files_of_detectors_agree_with_pytorch(method, options, outputs,
                                               tmp_path, capsys):
    write_detector(method, tmp_path)
    tool('export')([
        str(tmp_path / f'{method}.py'), str(tmp_path / f'{method}.pth'),
        '--shape', '64', '96', '--out', str(tmp_path / 'file'),
        *options.split()])
    text = capsys.readouterr().out
    shapes = text.count('images [')
    assert shapes == (4 if '--check' in options else 1)
    words = ('boxes', 'scores') if '--post' in options else ('cls_score_0',
                                                             'bbox_pred_4')
    assert all(f'{word} ' in text for word in words)
    if 'torch-export' not in options:
        import onnxruntime
        session = onnxruntime.InferenceSession(
            str(tmp_path / 'file'), providers=['CPUExecutionProvider'])
        batch = 5 if '--dynamic' in options else 1
        image = np.zeros((batch, 3, 64, 96), 'f4')
        found = session.run(None, dict(image=image))
        assert [len(y) for y in found] == [batch] * outputs


@pytest.mark.slow
@pytest.mark.skipif(not can_export(), reason='this torch cannot export')
def test_boxes_of_the_script_equal_those_of_mmdetection(tmp_path):
    """An image that is resized and padded, with overlapping boxes."""
    pytest.importorskip('onnxruntime')
    cfg, model = write_detector('fcos', tmp_path)
    tool('export')([
        str(tmp_path / 'fcos.py'), str(tmp_path / 'fcos.pth'), '--post',
        '--shape', '64', '96', '--out', str(tmp_path / 'fcos.onnx')])
    image = smooth(0, 128, 150)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/onnx_predict.py', 'fcos.onnx', 'a.png',
         'b.png'], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    # As the script samples: with the corner at the corner of a pixel.
    back = np.float64([[2, 0, 0], [0, 2, 0]])
    small = cv2.warpAffine(
        cv2.blur(image, (2, 2)), back, (75, 64),
        flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)
    data = model.data_preprocessor(
        dict(inputs=[torch.from_numpy(small).permute(2, 0, 1)],
             data_samples=None))
    x = torch.zeros(1, 3, 64, 96)
    x[..., :75] = data['inputs'][..., :75]
    boxes, scores, labels = (y.numpy() for y in predicted(model, x))
    assert len(lines) >= len(boxes) > 10
    names = np.array([line[0] for line in lines])
    found = np.array([line[1:] for line in lines], float)
    found[:, 2:4] += found[:, :2]
    assert (np.diff(found[:, 4]) <= 0).all()
    alike = [
        ((names == NAMES[label]) & (abs(found[:, 4] - score) < 2e-3)
         & (abs(found[:, :4] - 2 * box).max(1) < .6)).any()
        for box, score, label in zip(boxes, scores, labels)
    ]  # a few overlap by nearly the threshold of NMS
    assert np.mean(alike) > .9
    meta = json.loads(session_meta(tmp_path / 'fcos.onnx'))
    assert meta['names'] == [*NAMES] and meta['task'] == 'det'
    assert cv2.imread(str(tmp_path / 'b.png')).shape == image.shape


def session_meta(path):
    import onnxruntime
    session = onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider'])
    return session.get_modelmeta().custom_metadata_map['hrformer_mm']
