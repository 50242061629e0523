# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Models as ONNX and torch.export files, and predictions without PyTorch."""
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, onnx_predict
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from predicting import PERSON, smooth, write_config
from tool_runs import error_of, tool
from torch import nn

from hrformer_mm.apis import load_predictor
from hrformer_mm.core import HRFormer
from hrformer_mm.core.blocks import FFN, Block
from hrformer_mm.core.versions import can_export
from hrformer_mm.deploy import onnx_modules, optimize
from hrformer_mm.deploy.onnx_modules import WindowAttention, simplify
from hrformer_mm.deploy.postprocess import QuarterKeypoints, keypoints_of

onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
codecs = pytest.importorskip('mmpose.codecs')
if not can_export():
    pytest.skip('this torch is too old to export', allow_module_level=True)
SHAPES = dict(pose=[], seg=['--shape', '112', '224'],
              cls=['--shape', '64', '64'])  # yapf: disable
ARCH = dict(channels=(8, 16, 32, 64), heads=(1, 2, 2, 4), modules=(1, 1, 1))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('export')


@pytest.fixture(scope='module')
def saved(folder):
    return {task: write_config(task, folder) for task in SHAPES}


def run(saved, task, *args):
    tool('export')([*saved[task], *SHAPES[task], *map(str, args)])


def exported(saved, folder, task):
    """The file of a task with open dimensions, made when first asked for."""
    path = folder / f'{task}_post.onnx'
    if not path.exists():
        run(saved, task, '--dynamic', '--post', '--check', '--out', path)
    return path


def session_of(path):
    return ort.InferenceSession(str(path), providers=['CPUExecutionProvider'])


def meta_of(path):
    meta = session_of(path).get_modelmeta().custom_metadata_map
    return json.loads(meta['hrformer_mm'])


# The blocks of graphs


@pytest.mark.parametrize('fused', [True, False], ids=['fused', 'parts'])
@pytest.mark.parametrize('options', [
    dict(), dict(rel_pos_bias=False), dict(ffn='nodw'), dict(ffn='mlp'),
    dict(attention='shifted'), dict(mask_padding=True), dict(window_size=5),
], ids=str)  # yapf: disable
def test_simplified_blocks_have_equal_outputs(options, fused):
    torch.manual_seed(0)
    model = HRFormer(ARCH, **options).eval()
    x = torch.rand(2, 3, 72, 100)  # maps of 18 x 25 and less, all padded
    with torch.no_grad():
        wanted = model(x)
        found = simplify(optimize(model), fused)(x)
    for a, b in zip(found, wanted):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_blocks_with_masks_are_not_simplified():
    model = simplify(optimize(HRFormer(ARCH, attention='shifted')))
    kinds = {type(m.attn) is WindowAttention: m.attn
             for m in model.modules() if isinstance(m, onnx_modules.Block)}
    assert set(kinds) == {True, False} and kinds[False].shift


class OwnFFN(FFN):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize('ffn', ['dwconv', 'mlp'])
def test_blocks_of_others_are_exported_as_they_are(ffn):
    torch.manual_seed(0)
    model = HRFormer(ARCH, ffn=ffn).eval()
    changed = next(m for m in model.modules() if isinstance(m, Block))
    if ffn == 'dwconv':
        changed.ffn.__class__ = OwnFFN
    else:
        changed.ffn.fc2 = nn.Sequential(changed.ffn.fc2, nn.Tanh())
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        wanted = model(x)
        found = simplify(optimize(model))
        assert any(isinstance(m, Block) and isinstance(m.attn, WindowAttention)
                   for m in found.modules())
        found = found(x)
    for a, b in zip(found, wanted):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_attention_outside_of_branches_is_simplified():
    model = nn.Sequential(Block(8, 2, ffn='mlp')).eval()
    x = torch.rand(1, 9, 12, 8)
    with torch.no_grad():
        wanted, found = model(x), simplify(optimize(model))
        assert isinstance(found[0].attn, WindowAttention)
        assert (found(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


# Keypoints out of heatmaps


def hills(codec, rng, count=40):
    """Maps [count, 3, H, W] of a smooth hill each, some of them at edges."""
    width, height = codec.heatmap_size
    y, x = np.mgrid[:height, :width]
    at = rng.random((2, count, 3, 1, 1)) * [[[[[width]]]], [[[[height]]]]]
    maps = np.exp(-((x - at[0])**2 + (y - at[1])**2) / 8)
    maps += rng.random(maps.shape) * 1e-3
    maps[0, 0] = -1  # nobody there
    return maps.astype('f4')


@pytest.mark.parametrize('codec', [
    dict(type='MSRAHeatmap', sigma=2),
    dict(type='MSRAHeatmap', sigma=2, unbiased=True),
    dict(type='UDPHeatmap', sigma=2),
], ids=['quarter', 'dark', 'udp'])  # yapf: disable
def test_keypoints_equal_those_of_mmpose(codec):
    kind = getattr(codecs, codec.pop('type'))
    codec = kind(input_size=(96, 128), heatmap_size=(24, 32), **codec)
    maps = hills(codec, np.random.default_rng(0))
    points, scores = keypoints_of(codec)(torch.from_numpy(maps), None)
    for i, image in enumerate(maps):
        wanted, wanted_scores = codec.decode(image)
        np.testing.assert_array_equal(scores[i], wanted_scores[0])
        there = wanted_scores[0] > 0
        np.testing.assert_allclose(
            points[i][there], wanted[0][there], atol=2e-3)  # of 128 pixels
    assert (points[0, 0] < 0).all() and scores[0, 0] < 0


def test_an_unsupported_codec_is_reported():
    codec = codecs.SimCCLabel(input_size=(96, 128))
    with pytest.raises(ValueError, match='SimCCLabel .* without --post'):
        keypoints_of(codec)
    assert type(keypoints_of(codecs.MSRAHeatmap(
        (96, 128), (24, 32), 2))) is QuarterKeypoints


# Files


@pytest.mark.parametrize('task', [
    pytest.param(t, marks=[pytest.mark.slow] * (t != 'pose'))
    for t in SHAPES
])
def test_files_accept_batches_and_for_segmentation_any_size(
        saved, folder, task):
    path = exported(saved, folder, task)
    session = session_of(path)
    shape = session.get_inputs()[0].shape
    assert shape[:2] == ['batch', 3]
    assert shape[2:] == {'pose': [112, 84], 'cls': [64, 64],
                         'seg': ['height', 'width']}[task]  # yapf: disable
    size = (75, 98) if task == 'seg' else shape[2:]
    for batch in (1, 5):
        x = np.random.default_rng(0).random((batch, 3, *size)).astype('f4')
        outputs = session.run(None, dict(image=x))
        assert all(len(y) == batch for y in outputs)
    names = [y.name for y in session.get_outputs()]
    assert names == {'pose': ['keypoints', 'scores'], 'seg': ['labels'],
                     'cls': ['scores']}[task]  # yapf: disable
    if task == 'seg':
        assert outputs[0].shape == (5, 75, 98) and outputs[0].dtype == np.uint8
        assert len(np.unique(outputs[0])) > 1
    if task == 'cls':
        np.testing.assert_allclose(outputs[0].sum(1), 1, rtol=1e-5)


def test_the_tool_prints_the_differences_and_the_nodes(saved, tmp_path,
                                                       capsys):
    run(saved, 'cls', '--out', tmp_path / 'a.onnx')
    lines = capsys.readouterr().out.strip().splitlines()
    assert 'images [1, 3, 64, 64] differ from PyTorch by: logits' in lines[-2]
    nodes = len(onnx.load(tmp_path / 'a.onnx').graph.node)
    assert lines[-1].endswith(f'{nodes} nodes)')
    meta = meta_of(tmp_path / 'a.onnx')
    assert meta['names'] == list('abcdefghij') and not meta['post']
    assert meta['shape'] == [64, 64] and meta['rgb']


def test_an_existing_file_is_not_overwritten(saved, tmp_path, capsys):
    path = tmp_path / 'a.onnx'
    path.write_text('mine')
    message = error_of(tool('export'), [*saved['cls'], '--out', path], capsys)
    assert '--force' in message and path.read_text() == 'mine'


def test_a_file_with_different_outputs_is_not_written(saved, tmp_path, capsys,
                                                      monkeypatch):
    from hrformer_mm.deploy import export

    def spoil(model, *args):
        model.head.fc.weight.mul_(1.001)
        return simplify(model, *args)

    monkeypatch.setattr(export, 'simplify', spoil)
    monkeypatch.setattr(  # writing takes its time and is not what this is of
        export, 'write_onnx', lambda program, path, *_: export.write_program(
            program, path, {}))
    monkeypatch.setattr(
        export, 'open_file', lambda path, _, real=export.open_file: real(
            path, 'torch-export'))
    message = error_of(tool('export'), [
        *saved['cls'], *SHAPES['cls'], '--out', tmp_path / 'a.onnx'], capsys)
    assert 'nothing was written: logits' in message
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_model_are_rejected(saved, tmp_path, capsys):
    args = [saved['pose'][0], saved['cls'][1], '--out', tmp_path / 'a.onnx']
    assert 'lacks' in error_of(tool('export'), args, capsys)
    assert list(tmp_path.iterdir()) == []


# Predictions without PyTorch


def test_keypoints_of_the_script_equal_those_of_the_predictor(
        saved, folder, tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), smooth(0))
    found = onnx_predict(
        exported(saved, folder, 'pose'), path, tmp_path / 'b.png', '--box',
        *PERSON)
    cfg = Config.fromfile(saved['pose'][0])
    cfg.model.test_cfg.flip_test = False
    cfg.dump(tmp_path / 'pose.py')
    predictor = load_predictor(
        str(tmp_path / 'pose.py'), saved['pose'][1], device='cpu',
        boxes={'a.png': [PERSON]})  # yapf: disable
    people, = predictor([str(path)])
    numbers = np.array([line[1:] for line in found], float)
    np.testing.assert_allclose(
        numbers[:, 2], people.keypoint_scores[0], atol=2e-3)
    # It prints a tenth of a pixel. Maps of random weights are nearly flat, so
    # a few maxima are ties, which rounding decides.
    apart = np.abs(numbers[:, :2] - people.keypoints[0]).max(axis=1)
    assert (apart <= 0.06).mean() > 0.75
    assert [line[0] for line in found][:2] == ['nose', 'left_eye']
    assert (cv2.imread(str(tmp_path / 'b.png')) != smooth(0)).any()


@pytest.mark.parametrize(
    'task, size', [pytest.param('seg', (112, 224), marks=pytest.mark.slow),
                   ('cls', (64, 64))])  # yapf: disable
def test_results_of_the_script_equal_those_of_the_predictor(
        saved, folder, tmp_path, task, size):
    path, out, image = tmp_path / 'a.png', tmp_path / 'b.png', smooth(0, *size)
    cv2.imwrite(str(path), image)
    file = exported(saved, folder, task)
    lines = onnx_predict(file, path, out)
    found, = load_predictor(*saved[task], device='cpu')([str(path)])
    if task == 'cls':
        assert [line[0] for line in lines] == [
            'abcdefghij'[i] for i in np.argsort(-found)[:5]]
        np.testing.assert_allclose([float(line[1]) for line in lines],
                                   np.sort(found)[:-6:-1], atol=2e-3)
        assert (cv2.imread(str(out)) != image).any()  # its name is on it
    else:
        colors = np.array(meta_of(file)['palette'], 'u1')[found][..., ::-1]
        wanted = cv2.addWeighted(image, .5, colors, .5, 0)
        assert (cv2.imread(str(out)) == wanted).mean() > .99


@pytest.mark.parametrize('task', [
    pytest.param('seg', marks=pytest.mark.slow), 'cls'])  # yapf: disable
def test_the_script_accepts_images_of_any_size(saved, folder, tmp_path, task):
    for size in ((300, 151), (40, 60)):
        cv2.imwrite(str(tmp_path / 'a.png'), smooth(0, *size))
        onnx_predict(
            exported(saved, folder, task), tmp_path / 'a.png',
            tmp_path / 'b.png', '--force')
        assert cv2.imread(str(tmp_path / 'b.png')).shape[:2] == size


def failure_of(folder, *args):
    """Return the one line that the script prints when it fails."""
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/onnx_predict.py'), *map(str, args)],
        cwd=folder, text=True, capture_output=True)  # yapf: disable
    assert done.returncode == 2 and done.stdout == ''  # as all tools
    line, = done.stderr.splitlines()
    assert line.startswith('error: ')
    return line


def test_the_script_reports_files_it_cannot_use(saved, folder, tmp_path):
    model = exported(saved, folder, 'cls')
    cv2.imwrite(str(tmp_path / 'a.png'), smooth(0))
    (tmp_path / 'cut.onnx').write_bytes(model.read_bytes()[:1000])
    plain = onnx.load(model)
    del plain.metadata_props[:]
    onnx.save(plain, str(tmp_path / 'plain.onnx'))
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for args, says in (((model, 'no.png', 'x.png'), 'no.png is no image'),
                       ((model, __file__, 'x.png'), 'is no image'),
                       (('no.onnx', 'a.png', 'x.png'), 'no.onnx'),
                       (('cut.onnx', 'a.png', 'x.png'), 'cut.onnx'),
                       (('plain.onnx', 'a.png', 'x.png'), 'plain.onnx is not'),
                       ((model, 'a.png', 'a.png'), 'a.png is already there')):
        assert says in failure_of(tmp_path, *args)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    onnx_predict(model, tmp_path / 'a.png', tmp_path / 'a.png', '--force')
    assert (cv2.imread(str(tmp_path / 'a.png')) != smooth(0)).any()


def test_the_script_has_help_and_needs_no_torch():
    words = [word for line in onnx_predict('--help') for word in line]
    assert {'--box', '--force', 'example:'} <= {*words}
    source = (ROOT / 'tools/onnx_predict.py').read_text()
    assert {line.split()[1] for line in source.splitlines()
            if line.strip().startswith(('import ', 'from '))} == {
                'json', 'argparse', 'pathlib', 'cv2', 'numpy', 'onnxruntime',
                'openvino'}


# Longer


def random_weights(config: Path, path: Path) -> Path:
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize('task, options', [
    ('pose', '--half'), ('seg', '--half'), ('cls', '--half'),
    ('pose', '--opset 20'), ('pose', '--format torch-export --post'),
    ('pose', '--opset 17 --post --check'), ('seg', '--opset 17 --check'),
    ('cls', '--opset 17 --half'), ('pose', '--opset 11 --half'),
    ('seg', '--opset 11 --post --check'), ('cls', '--opset 11 --post'),
    ('seg', '--format torch-export --check'),
    ('cls', '--format torch-export --check'),
])  # yapf: disable
def test_all_file_formats_have_equal_outputs(saved, tmp_path, task, options):
    run(saved, task, '--dynamic', *options.split(), '--out', tmp_path / 'file')
    assert (tmp_path / 'file').stat().st_size > 1e5


@pytest.mark.slow
def test_hrformer_s_has_few_nodes(tmp_path, capsys):
    config = ROOT / 'configs/pose/hrformer_s_coco_256x192.py'
    weights = random_weights(config, tmp_path / 's.pth')
    tool('export')([str(config), str(weights), '--dynamic', '--check'])
    lines = capsys.readouterr().out.splitlines()
    assert sum('differ' in line for line in lines) == 4
    assert int(lines[-1].split()[-2]) <= 1400
    assert (tmp_path / 's.onnx').is_file()
