# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checkpoint tools, real configs, and the list of pretrained weights."""
import re
import subprocess
import sys
from collections import OrderedDict

import foreign
import pytest
import torch
from helpers import CONFIGS, ROOT, SHARED
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from hrformer_mm.checkpoints import convert, read_checkpoint
from hrformer_mm.checkpoints.download import sha256
from hrformer_mm.checkpoints.keymap import LAYOUTS, TARGETS
from hrformer_mm.checkpoints.publish import convert_file, publish
from hrformer_mm.checkpoints.weights_index import list_weights
from hrformer_mm.core.arch import ARCHS

sys.path.insert(0, str(ROOT / 'tools'))
import convert_checkpoint  # noqa: E402
import publish_model  # noqa: E402

GOLDEN = SHARED / 'golden'
GOLDENS = ('official_cls', 'official_cls_pad', 'official_pose',
           'official_seg_w7', 'official_seg_w15', 'mmpose_builtin')
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason='the golden files are not in the repository')
CONFIG_FILES = dict(
    cls='cls/hrformer_s_imagenet_224.py',
    pose='pose/hrformer_s_coco_256x192.py',
    seg='seg/hrformer_s_cityscapes_512x1024.py')
OUTPUTS = dict(cls='logits', pose='heatmaps', seg='out')


def save(layout, path, dtype=torch.float32, **kwargs):
    named = foreign.names(layout, kwargs.pop('arch', foreign.TINY), **kwargs)
    tensors = {
        k: v.clone()
        for k, v in foreign.random_tensors(named, dtype).items()
    }
    torch.save({LAYOUTS[layout].container: tensors}, path)
    return tensors


def build(task, arch, **options):
    """Build the model of a config in another size."""
    cfg = Config.fromfile(CONFIGS / CONFIG_FILES[task])
    channels = list(arch['channels'])
    sizes = dict(
        cls={
            'model.neck.in_channels': channels,
            'model.train_cfg': None
        },
        pose={'model.head.in_channels': channels[0]},
        seg={'model.decode_head.in_channels': channels})
    cfg.merge_from_dict({
        'model.backbone.arch': dict(arch, _delete_=True),
        'model.backbone.init_cfg': None,
        **sizes[task],
        **options
    })
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model).eval()


def golden(name):
    found = torch.load(GOLDEN / f'{name}.pt', weights_only=True)
    arch = found['meta']['arch']
    found['arch'] = dict(
        channels=arch['channels'],
        heads=arch['num_heads'],
        modules=arch['modules'])
    found['window'] = list(arch['window_sizes'])
    found['state_dict'] = OrderedDict(
        (k, v.float() if v.is_floating_point() else v)
        for k, v in found['state_dict'].items())
    return found


@needs_golden
@pytest.mark.parametrize('name', GOLDENS)
def test_golden_weights_loaded_into_a_config_reproduce_the_golden_outputs(
        name, tmp_path):
    gold = golden(name)
    task = gold['meta']['task']
    options = {'model.backbone.window_size': gold['window']}
    if name == 'official_pose':
        options['model.backbone.rel_pos_bias'] = False
    if task == 'cls':
        options['model.head.num_classes'] = gold['meta']['num_classes']
    model = build(task, gold['arch'], **options)
    container = 'model' if task == 'cls' else 'state_dict'
    torch.save({container: gold['state_dict']}, tmp_path / 'x.pth')
    load_checkpoint(model, str(tmp_path / 'x.pth'))  # what load_from does
    with torch.no_grad():
        found = model(gold['input'].float(), None, mode='tensor')
    expected = gold['outputs'][OUTPUTS[task]]
    # Both in float32; the arithmetic alone differs by up to 3.5e-5.
    assert (found - expected).abs().max() <= 1e-4 * expected.std()


@needs_golden
@pytest.mark.parametrize('name', GOLDENS)
def test_golden_weights_convert_to_ours_and_back_bit_by_bit(name, tmp_path):
    original = read_checkpoint(GOLDEN / f'{name}.pt')['state_dict']
    layout = name.partition('_w')[0].replace('_pad', '').replace('_', '-')
    layout = layout.replace('-builtin', '')
    ours, back = tmp_path / 'ours.safetensors', tmp_path / 'back.pth'
    convert_file(GOLDEN / f'{name}.pt', ours, check=True)
    report = convert_file(ours, back, to=layout, check=True)
    found = read_checkpoint(back)[LAYOUTS[layout].container]
    assert found.keys() == original.keys()
    for key, value in original.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key
    assert not report.missing and not report.unexpected


@pytest.mark.parametrize('task, layout', [
    ('pose', 'official-pose'), ('pose', 'mmpose'), ('pose', 'mmpose-0.x'),
    ('pose', 'mmpose-sequential'), ('cls', 'official-cls'),
    ('seg', 'official-seg')])  # yapf: disable
def test_a_config_loads_the_weights_of_every_layout(task, layout, tmp_path):
    weights = save(layout, tmp_path / 'x.pth')
    model = build(task, vars(foreign.TINY))
    load_checkpoint(model, str(tmp_path / 'x.pth'), strict=True)
    expected = convert(weights)[0]
    own = model.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[k], expected[k]) for k in own)


def test_a_converted_model_loads_into_mmposes_class_with_equal_outputs(
        tmp_path):
    pytest.importorskip('mmpose')
    from mmpose.models.backbones import HRFormer as Theirs
    arch = foreign.TINY
    model = build('pose', vars(arch))
    weights = save('mmpose', tmp_path / 'x.pth')
    model.load_state_dict(weights)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'ours.pth')
    convert_file(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', to='mmpose')
    extra = dict(
        drop_path_rate=0.,
        stage1=dict(num_modules=1, num_branches=1, block='BOTTLENECK',
                    num_blocks=(2, ), num_channels=(64, )))  # yapf: disable
    for n in (2, 3, 4):
        extra[f'stage{n}'] = dict(
            num_modules=arch.modules[n - 2], num_branches=n,
            block='HRFORMERBLOCK', num_blocks=(arch.blocks, ) * n,
            num_channels=arch.channels[:n], num_heads=arch.heads[:n],
            mlp_ratios=(4, ) * n, window_sizes=(7, ) * n)  # yapf: disable
    theirs = Theirs(extra, norm_cfg=dict(type='BN'))
    theirs.train(False)
    tensors = read_checkpoint(tmp_path / 'theirs.pth')['state_dict']
    theirs.load_state_dict({k[len('backbone.'):]: v
                            for k, v in tensors.items()
                            if k.startswith('backbone.')})  # yapf: disable
    x = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        a, b = model.backbone(x)[0], theirs(x)[0]
    assert (a - b).abs().max() <= 1e-4 * b.std()


@pytest.mark.parametrize('to', TARGETS)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_command_converts_to_every_target_and_checks(
        to, suffix, tmp_path, capsys):
    save('official-seg', tmp_path / 'x.pth')
    target = tmp_path / f'y{suffix}'
    convert_checkpoint.main(
        [str(tmp_path / 'x.pth'),
         str(target), '--to', to, '--check'])
    out = capsys.readouterr().out
    assert 'official-seg weights' in out and 'equal to the source' in out
    assert ('will differ' in out) == (to in ('mmpose', 'official-pose'))
    found = read_checkpoint(target)
    meta = found['meta']['hrformer_mm']
    assert meta['layout'] == to
    assert meta['truths'] == dict(rel_pos_bias=True, upsample='nearest')
    assert meta['source']['sha256'] == sha256(tmp_path / 'x.pth')


def test_model_semantics_survive_conversion_to_other_layouts(tmp_path):
    save('official-pose', tmp_path / 'a.pth')
    for first, second, to in (('a.pth', 'b.safetensors', 'ours'),
                              ('b.safetensors', 'c.pth',
                               'official-seg'), ('c.pth', 'd.pth', 'ours')):
        report = convert_file(tmp_path / first, tmp_path / second, to=to)
        assert report.semantics == dict(
            rel_pos_bias=False, upsample='bilinear')


@pytest.mark.parametrize('arguments, words', [
    (['absent.pth', 'y.pth'], 'absent.pth'),
    (['x.pth', 'x.pth'], '--force'),
    (['x.pth', 'y.pth', '--arch', 'base'], 'not of size'),
    (['x.pth', 'y.onnx'], '.safetensors'),
    (['x.pth', 'y.pth', '--key', 'ema'], 'ema'),
    (['other.pth', 'y.pth'], 'not the weights of an HRFormer'),
    (['text.pth', 'y.pth'], 'not a checkpoint')])  # yapf: disable
def test_errors_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save('official-pose', 'x.pth')
    torch.save({'layer1.0.conv1.weight': torch.zeros(3)}, 'other.pth')
    (tmp_path / 'text.pth').write_text('<html>not found</html>')
    with pytest.raises(SystemExit) as stop:
        convert_checkpoint.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error
    assert error.count('\n') == 1 and error.startswith('error: ')
    assert not (tmp_path / 'y.pth').exists()


@pytest.mark.parametrize('tool', [convert_checkpoint, publish_model])
def test_commands_have_help(tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(['--help'])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and '--force' in out and 'examples:' in out


PEAK = """
import resource, sys, time
from hrformer_mm.checkpoints.publish import convert_file
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start = peak(), time.perf_counter()
convert_file(*sys.argv[1:3], to=sys.argv[3])
print(peak() - before, time.perf_counter() - start)
"""


@pytest.mark.parametrize('to, suffix', [
    pytest.param('ours', '.safetensors', marks=pytest.mark.slow),
    ('mmpose', '.pth')])  # yapf: disable
def test_converting_the_largest_size_is_fast_and_uses_little_memory(
        to, suffix, tmp_path):
    save('official-cls', tmp_path / 'x.pth', arch=ARCHS['base'])
    size = (tmp_path / 'x.pth').stat().st_size
    done = subprocess.run([
        sys.executable, '-c', PEAK, tmp_path / 'x.pth',
        tmp_path / f'y{suffix}', to
    ],
                          capture_output=True,
                          text=True,
                          cwd=ROOT)
    assert done.returncode == 0, done.stderr
    memory, seconds = map(float, done.stdout.split()[-2:])
    assert 190e6 < size < 230e6  # 50.3M parameters, indices included
    assert memory < 3 * size
    assert seconds < 10


def training(tmp_path, name):
    """A checkpoint as mmengine's Runner saves it."""
    model = build('pose', vars(foreign.TINY))
    buffer = HistoryBuffer()
    buffer.update(74.5)
    path = tmp_path / name
    torch.save(
        dict(
            meta=dict(
                epoch=7, iter=70, seed=3, cfg='a = 1\n', time='now',
                dataset_meta=dict(dataset_name='coco')),
            state_dict=model.state_dict(),
            message_hub=dict(
                log_scalars={'val/coco/AP': buffer, 'train/loss': buffer},
                runtime_info={}),
            optimizer=dict(state={0: torch.zeros(10**6)}),
            param_schedulers=[]), path)  # yapf: disable
    return path, model


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_published_file_contains_weights_and_their_origin(suffix, tmp_path):
    source, model = training(tmp_path, 'best_coco_AP_epoch_7.pth')
    path = publish(source, tmp_path / f'hrformer{suffix}', commit='abc')
    assert path.name == f'hrformer-{sha256(path)[:8]}{suffix}'
    found = read_checkpoint(path)
    assert found.keys() == {'meta', 'state_dict'}
    meta = found['meta']
    assert meta['cfg'] == 'a = 1\n' and meta['epoch'] == 7
    assert meta['dataset_meta'] == dict(dataset_name='coco')
    assert meta['hrformer_mm']['metrics'] == {'coco/AP': 74.5}
    assert meta['hrformer_mm']['commit'] == 'abc'
    assert meta['hrformer_mm']['truths']['upsample'] == 'bilinear'
    other = build('pose', vars(foreign.TINY))
    load_checkpoint(other, str(path), strict=True)
    own, expected = other.state_dict(), model.state_dict()
    assert all(torch.equal(own[k], expected[k]) for k in expected)
    assert path.stat().st_size < source.stat().st_size / 2


def test_only_the_best_checkpoint_has_metrics(tmp_path, capsys):
    source, _ = training(tmp_path, 'epoch_7.pth')
    path = publish(source, tmp_path / 'a.pth')
    assert read_checkpoint(path)['meta']['hrformer_mm']['metrics'] == {}
    publish_model.main([
        str(source), str(tmp_path / 'b.pth'), '--metric', 'AP=74.5',
        '--metric', 'Top 1 Accuracy=80', '--config',
        str(CONFIGS / CONFIG_FILES['pose'])])  # yapf: disable
    path = next(tmp_path.glob('b-*.pth'))
    assert str(path) in capsys.readouterr().out
    meta = read_checkpoint(path)['meta']
    assert meta['hrformer_mm']['metrics'] == {
        'AP': 74.5,
        'Top 1 Accuracy': 80.
    }
    assert 'TopdownPoseEstimator' in meta['cfg']


def test_publishing_twice_is_deterministic_and_does_not_overwrite(tmp_path):
    source, _ = training(tmp_path, 'epoch_7.pth')
    first = publish(source, tmp_path / 'a.pth')
    with pytest.raises(FileExistsError, match='--force'):
        publish(source, tmp_path / 'a.pth')
    assert publish(source, tmp_path / 'a.pth', force=True) == first
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [first.name, source.name])


@pytest.mark.parametrize('entry', list_weights(), ids=lambda w: w.name)
def test_released_weights_are_listed_with_everything_needed_to_use_them(entry):
    assert entry.layout in LAYOUTS and entry.arch in ARCHS
    assert (ROOT / entry.config).is_file()
    backbone = Config.fromfile(ROOT / entry.config).model.backbone
    assert backbone.arch == entry.arch
    assert backbone.get('window_size', 7) == entry.window
    assert entry.url.startswith('https://') and entry.page.startswith('https:')
    assert entry.license in ('MIT', 'Apache-2.0')
    assert re.fullmatch(r'([0-9a-f]{8,64})?', entry.sha256)
    assert entry.sha256[:8] in entry.name
    args = convert_checkpoint.parse_args(entry.convert.split()[2:])
    assert args.source == entry.name and args.arch == entry.arch
    # Options are what the layout's semantics ask for beyond the config's.
    wanted = LAYOUTS[entry.layout].arguments
    other = [
        f'model.backbone.{k}={v}' for k, v in wanted.items()
        if backbone.get(k, True) != v
    ]
    assert other == entry.options.split() or entry.backbone


@pytest.mark.parametrize('task', ['pose', 'seg'])
def test_a_config_builds_without_its_weights_and_reports_them_in_one_line(
        task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('HRFORMER_MM_WEIGHTS', raising=False)
    monkeypatch.delenv('HRFORMER_MM_MIRROR', raising=False)
    model = build(
        task, vars(foreign.TINY), **{
            'model.backbone.init_cfg':
            dict(type='Pretrained', checkpoint='hrt_small.pth')
        })
    with pytest.raises(FileNotFoundError, match='init_cfg=None') as error:
        model.init_weights()
    assert '\n' not in str(error.value)
    assert 'github.com/HRNet/HRFormer' in str(error.value)


@pytest.mark.slow
def test_pretrained_files_of_configs_are_listed_or_ours():
    """Ours are called as the config that makes them."""
    known = {w.name for w in list_weights()}
    known |= {f'{path.stem}.pth' for path in CONFIGS.glob('cls/hrformer_t_*')}
    for path in CONFIGS.glob('*/hrformer_*.py'):
        init = Config.fromfile(path).model.backbone.get('init_cfg')
        if init:
            assert init.checkpoint in known
