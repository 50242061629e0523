# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Networks in onnxruntime and OpenVINO: files, predictions, evaluation."""
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, onnx_predict
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from predicting import PERSON, arguments, smooth, write_config
from tiny_tasks import task_config
from tool_runs import error_of, tool

from hrformer_mm.__main__ import main
from hrformer_mm.apis import load_predictor
from hrformer_mm.core.versions import can_export
from hrformer_mm.deploy import runtimes
from hrformer_mm.deploy.backends import choose_backend
from hrformer_mm.deploy.postprocess import Network
from hrformer_mm.deploy.runtimes import KEPT, Session, Specialized
from hrformer_mm.tasks import get_task

for package in ('onnx', 'onnxruntime', 'onnxscript', 'mmpose.codecs'):
    pytest.importorskip(package)
if not can_export():
    pytest.skip('this torch is too old to export', allow_module_level=True)
SHAPES = dict(pose=[], seg=['--shape', '112', '224'],
              cls=['--shape', '64', '64'])  # yapf: disable
FORMATS = {'.onnx': 'onnx', '.xml': 'openvino'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runtimes')
    cv2.imwrite(str(folder / 'a.png'), smooth(0))
    return folder


class Models(dict):
    """Config and weights of each task, made when first asked for."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def __missing__(self, task):
        self[task] = write_config(task, self.folder)
        return self[task]


@pytest.fixture(scope='module')
def saved(folder):
    return Models(folder)


@pytest.fixture
def openvino():
    return pytest.importorskip('openvino')


def run(saved, task, *args):
    tool('export')([*saved[task], *SHAPES[task], *map(str, args)])


def exported(saved, folder, task, suffix='.xml'):
    """The file of a task with open dimensions, made when first asked for."""
    path = folder / f'{task}{suffix}'
    if not path.exists():
        run(saved, task, '--dynamic', '--format', FORMATS[suffix], '--out',
            path)
    return path


def write_network(path, batch='batch', **meta):
    """Write a convolution with the inputs and outputs of a pose model."""
    onnx = pytest.importorskip('onnx')
    kernel = np.random.default_rng(0).normal(size=(17, 3, 4, 4)).astype('f4')
    f4 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node('Conv', ['image', 'kernel'], ['heatmaps'],
                               strides=[4, 4])], 'network',
        [onnx.helper.make_tensor_value_info('image', f4, [batch, 3, 112, 84])],
        [onnx.helper.make_tensor_value_info('heatmaps', f4,
                                            [batch, 17, 28, 21])],
        [onnx.numpy_helper.from_array(kernel, 'kernel')])  # yapf: disable
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8)
    facts = dict(task='pose', post=False, names=['joint'] * 17)
    onnx.helper.set_model_props(
        model, {runtimes.META: json.dumps({**facts, **meta})})
    onnx.save(model, path)
    return path


@pytest.fixture
def onnx_file(tmp_path):
    return write_network(tmp_path / 'network.onnx')


@pytest.fixture
def pair(openvino, onnx_file):
    """The file and the weights of a network."""
    model = openvino.Core().read_model(onnx_file)
    openvino.save_model(model, onnx_file.with_suffix('.xml'))
    return onnx_file.with_suffix('.xml'), onnx_file.with_suffix('.bin')


# Networks of OpenVINO, compiled for shapes


class OpenModel:
    """Stands for a model of OpenVINO with open dimensions."""
    inputs = [SimpleNamespace(
        partial_shape=[SimpleNamespace(is_dynamic=True)])]  # yapf: disable

    def __init__(self, *operators):
        self.operators = operators
        self.shape = None

    def is_dynamic(self):
        return True

    def get_ops(self):
        return [SimpleNamespace(get_type_name=lambda n=name: n)
                for name in self.operators]

    def clone(self):
        return OpenModel(*self.operators)

    def reshape(self, shape):
        self.shape = tuple(shape)


class Request:
    """Returns the sums of images, and the shape it was compiled for."""

    def __init__(self, shape):
        self.shape = shape

    def start_async(self, inputs):
        sums = inputs[0].sum((1, 2, 3))
        self.output_tensors = [
            SimpleNamespace(data=y) for y in (sums, np.array([self.shape]))]

    def wait(self):
        pass


@pytest.fixture
def specialized(monkeypatch):
    monkeypatch.setattr(
        Specialized, 'compile', lambda self, model, parts: [
            Request(model.shape) for _ in range(parts)])
    return lambda *operators, threads=1: Specialized(
        OpenModel(*operators), {}, threads)


def shapes_of(network, shapes):
    """Return the shapes that batches of some shapes are computed in."""
    found = [network(np.zeros(shape, 'f4'))[1][0] for shape in shapes]
    return [shape if shape is None else tuple(shape) for shape in found]


@pytest.mark.parametrize('batch, threads, parts', [
    (1, 8, 1), (4, 1, 1), (4, 2, 2), (6, 4, 3), (5, 4, 1), (4, 64, 4)])
def test_batches_are_split_into_equal_parts_that_keep_their_order(
        specialized, batch, threads, parts):
    images = np.random.default_rng(0).normal(
        size=(batch, 3, 4, 6)).astype('f4')  # yapf: disable
    sums, shapes = specialized(threads=threads)(images)
    np.testing.assert_allclose(sums, images.sum((1, 2, 3)), atol=1e-6)
    assert shapes.tolist() == [[batch // parts, 3, 4, 6]] * parts


def test_the_first_shape_and_those_that_return_are_compiled_for(specialized):
    often, once, last = (4, 3, 128, 96), (2, 3, 128, 96), (1, 3, 128, 96)
    found = shapes_of(specialized(), [often, often, once, last, *[once] * 3])
    assert found == [often, often, None, None, None, None, once]


def test_the_number_of_networks_is_limited(specialized):
    network = specialized()
    shapes = [(n + 1, 3, 96, 96) for n in range(12)] * 9
    found = shapes_of(network, shapes)
    assert len(network.networks) == KEPT and found[-1] is None
    assert found[-12] == shapes[0]


@pytest.mark.parametrize('operator, shape, is_own', [
    ('FakeQuantize', (1, 3, 64, 192), True),
    ('FakeQuantize', (1, 3, 96, 96), False),
    ('Convolution', (1, 3, 64, 192), False)])  # yapf: disable
def test_small_images_in_int8_never_meet_open_dimensions(
        specialized, operator, shape, is_own):
    first = (1, 3, 128, 96)
    found = shapes_of(specialized(operator), [first, shape])
    assert found == [first, shape if is_own else None]
    many = [(n + 1, 3, 32, 32) for n in range(12)]
    network = specialized('FakeQuantize')
    assert shapes_of(network, many) == many and len(network.networks) == KEPT


def test_networks_for_shapes_predict_as_those_for_open_ones(openvino,
                                                            onnx_file):
    session = Session(onnx_file, 'openvino')
    images = np.random.default_rng(0).normal(size=(7, 3, 112, 84)).astype('f4')
    wanted = Session(onnx_file, 'onnxruntime')(images)[0]
    kept = []
    for count in (4, 2, 2, 2, 2, 7):
        found, = session(images[:count])
        kept.append((found, found.copy()))  # later calls leave it alone
        np.testing.assert_allclose(found, wanted[:count], atol=1e-5)
    assert all(np.array_equal(*both) for both in kept)
    assert session.shape == (None, 3, 112, 84)
    assert set(session.run.networks) == {
        (4, 3, 112, 84), (2, 3, 112, 84), None}  # yapf: disable


# The choice of the runtime


@pytest.mark.parametrize('name, backend, wanted', [
    ('a.pth', 'auto', 'torch'), ('a.onnx', 'auto', 'onnxruntime'),
    ('a.xml', 'auto', 'openvino'), ('a.pth', 'openvino', 'openvino'),
    ('a.onnx', 'openvino', 'openvino'), ('https://b/a.pth', 'auto', 'torch'),
])  # yapf: disable
def test_the_runtime_follows_from_the_file_or_the_request(
        name, backend, wanted):
    found, reason = choose_backend(name, backend)
    assert found == wanted
    assert 'a.' in reason if backend == 'auto' else reason == 'as requested'


@pytest.mark.parametrize('name, backend', [
    ('a.xml', 'torch'), ('a.xml', 'onnxruntime'), ('a.onnx', 'torch'),
    ('a.pth', 'tensorrt')])  # yapf: disable
def test_a_runtime_that_cannot_read_the_file_is_refused(name, backend):
    with pytest.raises(ValueError, match=backend):
        choose_backend(name, backend)


def test_without_onnxruntime_openvino_reads_onnx(monkeypatch):
    monkeypatch.setattr('hrformer_mm.deploy.backends.find_spec',
                        lambda name: None if name == 'onnxruntime' else 1)
    assert choose_backend('a.onnx') == ('openvino',
                                        'onnxruntime is not installed')


@pytest.mark.parametrize('name, version, text', [
    ('openvino', None, 'openvino is not installed'),
    ('openvino', '2025.4.1', '2025.4.1 is too old, version 2026.4'),
    ('nncf', '2.19.0', '2.19.0 is too old, version 3.4'),
])
def test_missing_and_old_packages_are_reported_with_the_command(
        monkeypatch, name, version, text):
    monkeypatch.setattr(runtimes, 'find_spec', lambda name: version)
    monkeypatch.setattr(runtimes, 'version', lambda name: version)
    with pytest.raises(ImportError, match=text) as error:
        runtimes.check_packages(name)
    assert "pip install 'hrformer-mm[openvino]'" in str(error.value)


def test_the_stated_versions_are_those_of_the_requirements():
    lines = {line for name in ('export', 'openvino')
             for line in (ROOT / f'requirements/{name}.txt').read_text()
             .splitlines()}  # yapf: disable
    for name, (_, oldest) in runtimes.PACKAGES.items():
        assert f'{name}>={oldest}.0' in lines


# Files


@pytest.mark.slow
def test_pairs_of_files_have_open_sizes_and_a_description(
        openvino, saved, folder):
    pose_file = exported(saved, folder, 'pose')
    assert pose_file.with_suffix('.bin').stat().st_size > 1e5
    session = Session(pose_file, 'openvino')
    assert session.shape == (None, 3, 112, 84)
    assert list(session.names) == ['heatmaps']
    assert session.meta['task'] == 'pose' and session.meta[
        'precision'] == 'fp32'
    left = {p.suffix for p in pose_file.parent.glob('.*')}
    assert not left  # no temporary files


@pytest.mark.slow
def test_both_runtimes_agree_on_a_file(openvino, saved, folder):
    pose_file = exported(saved, folder, 'pose')
    onnx = exported(saved, folder, 'pose', '.onnx')
    x = np.random.default_rng(0).normal(size=(3, 3, 112, 84)).astype('f4')
    outputs = [Session(path, backend)(x)[0] for path, backend in (
        (onnx, 'onnxruntime'), (onnx, 'openvino'), (pose_file, 'openvino'))]
    for y in outputs[1:]:
        np.testing.assert_allclose(
            y, outputs[0], atol=1e-4 * np.abs(outputs[0]).max())


def test_damaged_files_are_reported_in_one_line(pair):
    xml, weights = pair
    assert Session(xml, 'openvino').meta['task'] == 'pose'
    whole = weights.read_bytes(), xml.read_bytes()
    weights.write_bytes(whole[0][:len(whole[0]) // 2])
    with pytest.raises(ValueError, match='damaged'):
        Session(xml, 'openvino')
    weights.unlink()
    with pytest.raises(FileNotFoundError, match='the weights of .* missing'):
        Session(xml, 'openvino')
    weights.write_bytes(whole[0])
    xml.write_bytes(whole[1][:len(whole[1]) // 2])
    with pytest.raises(ValueError, match='damaged'):
        Session(xml, 'openvino')


def test_a_damaged_onnx_file_is_reported_in_one_line(onnx_file):
    onnx_file.write_bytes(b'no graph')
    with pytest.raises(ValueError, match='damaged') as error:
        Session(onnx_file, 'onnxruntime')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_images_of_another_size_are_reported(onnx_file, backend):
    pytest.importorskip(backend)
    with pytest.raises(ValueError, match=r'takes images of \[112, 84\] .* got '
                       r'\[64, 64\]: .*--shape'):
        Session(onnx_file, backend)(np.zeros((1, 3, 64, 64), 'f4'))


@pytest.mark.slow
def test_nothing_remains_of_a_file_that_differs(openvino, saved, tmp_path,
                                                capsys, monkeypatch):
    from hrformer_mm.deploy import export
    monkeypatch.setattr(export, 'difference', lambda *args: 1.)
    out = tmp_path / 'a.xml'
    message = error_of(tool('export'), [
        *saved['pose'], '--format', 'openvino', '--out', out], capsys)
    assert 'nothing was written' in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('present', ['a.xml', 'a.bin'])
def test_neither_file_of_a_pair_is_overwritten(openvino, saved, tmp_path,
                                               capsys, present):
    (tmp_path / present).write_text('mine')
    message = error_of(
        tool('export'), [*saved['pose'], '--format', 'openvino', '--out',
                         tmp_path / 'a.xml'], capsys)
    assert '--force' in message
    assert (tmp_path / present).read_text() == 'mine'


def test_a_checkpoint_is_not_overwritten_by_weights(openvino, saved, tmp_path,
                                                    capsys):
    weights = tmp_path / 'model.bin'
    weights.write_bytes(Path(saved['pose'][1]).read_bytes())
    message = error_of(tool('export'), [
        saved['pose'][0], weights, '--format', 'openvino', '--force'], capsys)
    assert 'is the checkpoint' in message


@pytest.mark.parametrize('flags, text', [
    (['--precision', 'bf16'], '--precision is for --format openvino'),
    (['--format', 'openvino', '--half'], 'use --precision bf16'),
    (['--format', 'openvino', '--precision', 'int8'], '--calibrate'),
    (['--format', 'openvino', '--calibrate', '.'], '--precision int8'),
    (['--format', 'openvino', '--precision', 'int8', '--calibrate', '.',
      '--post'], '--post is not for'),
    (['--format', 'openvino', '--out', 'a.onnx'], 'end in .xml'),
])  # yapf: disable
def test_options_that_contradict_each_other_are_refused(
        openvino, saved, tmp_path, capsys, flags, text):
    out = [] if '--out' in flags else ['--out', tmp_path / 'a.xml']
    assert text in error_of(
        tool('export'), [*saved['pose'], *out, *flags], capsys)


def test_a_cpu_without_bf16_computes_in_float32_with_a_notice(monkeypatch):
    said = []
    monkeypatch.setattr(runtimes, 'print_log',
                        lambda *args, **_: said.append(args))
    for has_bf16, wanted in ((False, 'f32'), (True, 'bf16')):
        runtimes.precision_hint.cache_clear()
        monkeypatch.setattr(runtimes, 'has_bf16', lambda: has_bf16)
        assert runtimes.precision_hint('bf16') == wanted
        assert runtimes.precision_hint('fp32') == 'f32'
    runtimes.precision_hint.cache_clear()
    assert len(said) == 1 and 'no bf16 instructions' in said[0][0]


# Predictions


@pytest.mark.slow
@pytest.mark.parametrize('task', SHAPES)
@pytest.mark.parametrize('suffix', FORMATS)
def test_predictions_equal_those_of_pytorch(saved, folder, tmp_path, task,
                                            suffix):
    if suffix == '.xml':
        pytest.importorskip('openvino')
    path = exported(saved, folder, task, suffix)
    config, weights = saved[task]
    for name, model in (('torch', weights), ('file', path)):
        assert main(arguments((config, str(model)), folder / 'a.png',
                              '--out-dir', tmp_path / name)) == 0
    a, b = (tmp_path / name for name in ('torch', 'file'))
    files = [sorted(p.relative_to(x) for p in x.rglob('*') if p.is_file())
             for x in (a, b)]
    assert files[0] == files[1] and any(
        'overlays' in p.parts for p in files[0])
    found, wanted = (json.loads((x / 'predictions.json').read_text())
                     for x in (b, a))
    if task == 'pose':
        np.testing.assert_allclose(found[0]['keypoints'],
                                   wanted[0]['keypoints'], atol=.02)
    elif task == 'cls':
        assert [c['name'] for c in found[0]['classes']] == [
            c['name'] for c in wanted[0]['classes']]
    else:
        assert found['classes'] == wanted['classes']
        labels = [cv2.imread(str(x / 'labels/a.png'), -1) for x in (a, b)]
        assert (labels[0] != labels[1]).mean() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('task', SHAPES)
def test_a_checkpoint_is_exported_for_a_requested_runtime(openvino, saved,
                                                          task):
    options = dict(boxes='whole') if task == 'pose' else {}
    predictor = load_predictor(*saved[task], backend='openvino', **options)
    assert predictor.notes[0] == 'backend: openvino (as requested)'
    plain = load_predictor(*saved[task], device='cpu', **options)
    assert 'backend: torch (' in plain.notes[0]
    found, wanted = (p(smooth(0))[0] for p in (predictor, plain))
    if task == 'pose':
        found, wanted = found.keypoint_scores, wanted.keypoint_scores
    assert np.abs(np.float64(found) - wanted).mean() < 1e-4


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_a_file_for_one_image_runs_a_batch_one_by_one(tmp_path, backend):
    pytest.importorskip(backend)
    session = Session(write_network(tmp_path / 'a.onnx', batch=1), backend)
    x = np.random.default_rng(0).normal(size=(3, 3, 112, 84)).astype('f4')
    y, = session(x)
    assert session.shape[0] == 1 and len(y) == 3
    np.testing.assert_array_equal(y[2:], session(x[2:])[0])


def test_a_file_takes_the_place_of_the_weights(onnx_file, saved, folder,
                                               tmp_path, capsys):
    """Its outputs are decoded by MMPose."""
    assert main(arguments(
        (saved['pose'][0], str(onnx_file)), folder / 'a.png', '--out-dir',
        tmp_path / 'out')) == 0
    assert 'backend: onnxruntime (network.onnx' in capsys.readouterr().err
    person, = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert (tmp_path / 'out/overlays/a.png').is_file()
    predictor = load_predictor(saved['pose'][0], onnx_file, boxes='whole')
    predictor.model.test_cfg['flip_test'] = False
    frames = []
    predictor.model.backbone.register_forward_hook(
        lambda module, args, maps: frames.append((args[0], maps[0])))
    found, = predictor(smooth(0))
    image, maps = frames[0]
    np.testing.assert_allclose(
        maps, Session(onnx_file, 'onnxruntime')(image.numpy())[0])
    np.testing.assert_allclose(found.keypoint_scores[0],
                               maps.amax((2, 3))[0], rtol=1e-5)
    assert len(person['keypoints']) == 51


@pytest.mark.parametrize('meta, flags, text', [
    (dict(post=True), [], 'exported with --post'),
    (dict(task='cls'), [], 'is a model for cls'),
    (None, [], 'is not a file of tools/export.py'),
    (dict(names=['a'] * 5), [], 'predicts 5 .* has 17'),
    ({}, ['--device', 'meta'], 'runs on the CPU'),
    ({}, ['--precision', 'bf16'], 'is for the backend openvino'),
    ({}, ['--backend', 'torch'], 'torch cannot read'),
    ('missing', [], 'there is no file'),
], ids=str)  # yapf: disable
def test_files_that_do_not_fit_are_refused(saved, folder, tmp_path, capsys,
                                           meta, flags, text):
    path = tmp_path / 'a.onnx'
    if meta != 'missing':
        write_network(path, **meta or {})
    if meta is None:
        onnx = pytest.importorskip('onnx')
        model = onnx.load(path)
        del model.metadata_props[:]
        onnx.save(model, path)
    assert re.search(text, error_of(main, [
        'predict', saved['pose'][0], path, folder / 'a.png', '--out-dir',
        tmp_path / 'out', *flags], capsys))  # yapf: disable


# Evaluation


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of each task, on data of their own."""
    found = {}

    def make(task):
        if task not in found:
            folder = tmp_path_factory.mktemp(task)
            cfg = task_config(task, folder)
            cfg.dump(folder / 'config.py')
            weights = folder / 'weights.pth'
            torch.manual_seed(0)
            with DefaultScope.overwrite_default_scope(cfg.default_scope):
                model = MODELS.build(cfg.model)
            torch.save(dict(state_dict=model.state_dict()), weights)
            found[task] = str(folder / 'config.py'), str(weights)
        return found[task]

    return make


def metrics(path, *args):
    tool('test')([*map(str, args), '--out', str(path)])
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize('task', SHAPES)
def test_evaluations_of_files_equal_those_of_checkpoints(
        trained, tmp_path, task, openvino):
    config, weights = trained(task)
    path = tmp_path / 'network.xml'
    tool('export')([config, weights, *SHAPES[task], '--dynamic', '--format',
                    'openvino', '--out', str(path)])
    wanted = metrics(tmp_path / 'a.json', config, weights)
    found = metrics(tmp_path / 'b.json', config, path)
    assert found.keys() == wanted.keys() and found
    for name, value in wanted.items():
        if 'time' not in name:
            assert found[name] == pytest.approx(value, abs=1e-2), name


# Networks of the paper in a fresh process

RELOAD = """
import sys
import numpy as np
from hrformer_mm.deploy.runtimes import KEPT, Session, Specialized
session = Session(sys.argv[1], 'openvino')
with np.load(sys.argv[2]) as images:
    found = {k: session(images[k])[0] for k in images}
np.savez(sys.argv[3], **found)
"""


@pytest.mark.slow
@pytest.mark.parametrize('config, sizes', [
    ('pose/hrformer_s_coco_256x192', [(256, 192)]),
    ('pose/hrformer_b_coco_256x192', [(256, 192)]),
    ('seg/hrformer_s_cityscapes_512x1024', [(64, 97), (128, 256), (201, 99)]),
    ('cls/hrformer_s_imagenet_224', [(224, 224)]),
])
def test_networks_of_the_paper_are_reloaded_in_a_fresh_process(
        openvino, tmp_path, config, sizes):
    cfg = Config.fromfile(ROOT / f'configs/{config}.py')
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    shape = ['--shape', '128', '256'] if len(sizes) > 1 else []
    tool('export')([cfg.filename, str(tmp_path / 'a.pth'), '--format',
                    'openvino', '--dynamic', *shape])
    rng = np.random.default_rng(0)
    images = {f'{h}x{w}': rng.normal(size=(2, 3, h, w)).astype('f4')
              for h, w in sizes}
    np.savez(tmp_path / 'images.npz', **images)
    subprocess.run([sys.executable, '-c', RELOAD, tmp_path / 'a.xml',
                    tmp_path / 'images.npz', tmp_path / 'found.npz'],
                   check=True)  # yapf: disable
    with np.load(tmp_path / 'found.npz') as found, torch.no_grad():
        for name, image in images.items():
            wanted, = Network(model, get_task(cfg).name, False)(
                torch.from_numpy(image))
            np.testing.assert_allclose(
                found[name], wanted, atol=1e-4 * wanted.abs().max().item())


# Predictions without PyTorch


@pytest.mark.slow
@pytest.mark.parametrize('task', SHAPES)
def test_the_script_reads_files_of_openvino(openvino, saved, folder, tmp_path,
                                            task):
    drawn = []
    for suffix, format in FORMATS.items():
        path = tmp_path / f'{task}{suffix}'
        run(saved, task, '--post', '--format', format, '--out', path)
        out = tmp_path / f'{suffix[1:]}.png'
        box = ['--box', *PERSON] if task == 'pose' else []
        drawn.append(
            (onnx_predict(path, folder / 'a.png', out, *box), cv2.imread(
                str(out))))
    assert [w[0] for w in drawn[0][0]] == [w[0] for w in drawn[1][0]]
    assert (drawn[0][1] != drawn[1][1]).mean() < 1e-2


def test_versions_are_those_of_the_installed_packages(openvino):
    runtimes.check_packages('openvino')
    assert metadata.version('openvino') >= '2026.4'
