# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Pure-Python configs, with classes instead of names, work in every tool."""
import json
from pathlib import Path

import cv2
import pytest
from helpers import write_tiny_coco
from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    DefaultScope,
)
from predicting import CONFIG_FILES, read, run, smooth, write_config
from tool_runs import tool

from hrformer_mm.engine.train import read_config, show_predictions, use_amp
from hrformer_mm.utils.config import bare_name, name_type, name_types

REGISTRIES = (MODELS, TRANSFORMS, DATASETS, HOOKS, METRICS, OPTIMIZERS,
              OPTIM_WRAPPERS, PARAM_SCHEDULERS, LOOPS, VISUALIZERS,
              VISBACKENDS, DATA_SAMPLERS)


def class_of(name, scope):
    for registry in REGISTRIES:
        with registry.switch_scope_and_registry(scope) as found:
            kind = found.get(name)
        if isinstance(kind, type):
            return kind
    return None


def as_python(value, scope, imports):
    """The text of a value whose types are classes that are imported."""
    if isinstance(value, dict):
        items = []
        for key, item in value.items():
            kind = class_of(item, scope) if key == 'type' and isinstance(
                item, str) and item else None
            if kind is not None:
                text = imports.setdefault(kind, f'C{len(imports)}')
            else:
                text = as_python(item, scope, imports)
            items.append(f'{key!r}: {text}')
        return '{' + ', '.join(items) + '}'
    if isinstance(value, (list, tuple)):
        inner = ', '.join(as_python(v, scope, imports) for v in value)
        return f'[{inner}]' if isinstance(value, list) else f'({inner},)'
    return repr(value)


def write_lazy(config, path):
    """Write a config again with classes, and without a default scope."""
    cfg, imports = Config.fromfile(config), {}
    scope = cfg.default_scope
    lines = [f'{key} = {as_python(value, scope, imports)}'
             for key, value in cfg.to_dict().items()
             if key not in ('default_scope', 'custom_imports')]
    head = [f'from {kind.__module__} import {kind.__name__} as {name}'
            for kind, name in imports.items()]
    assert len(head) > 10
    text = '\n'.join([*head, 'default_scope = None', *lines, ''])
    Path(path).write_text(text, encoding='utf-8')
    return str(path)


@pytest.fixture(scope='module', params=['classes', 'saved', 'scoped'])
def form(request):
    return request.param


@pytest.fixture(scope='module')
def saved(tmp_path_factory, form):
    """Config and weights of each task, in one of the forms.

    ``saved`` is as mmengine saves a pure-Python config, with paths of
    classes; in ``scoped`` all names have their scope.
    """
    folder = tmp_path_factory.mktemp(form)
    found = {}
    for task in CONFIG_FILES:
        config, weights = write_config(task, folder)
        lazy = write_lazy(config, folder / f'{task}_lazy.py')
        path = folder / f'{task}_{form}.py'
        if form == 'saved':
            Config.fromfile(lazy).dump(path)
            assert Config.fromfile(path).model.type.count('.') > 1
        elif form == 'scoped':
            cfg = name_types(Config.fromfile(lazy))
            cfg.pop('default_scope')
            cfg.dump(path)
        found[task] = (lazy if form == 'classes' else str(path), weights)
    return found


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_types_are_converted_to_names_with_their_scope(saved, task):
    scope = dict(pose='mmpose', seg='mmseg', cls='mmpretrain')[task]
    cfg = read_config(saved[task][0])
    assert cfg.default_scope == scope
    assert cfg.model.type.startswith(f'{scope}.')
    assert cfg.model.backbone.type == 'hrformer_mm.HRFormer'
    assert bare_name(cfg.optim_wrapper.type) in ('OptimWrapper',
                                                 'AmpOptimWrapper')
    with DefaultScope.overwrite_default_scope(scope):
        assert type(MODELS.build(cfg.model)).__name__ == bare_name(
            cfg.model.type)
    json.dumps(cfg.to_dict())  # nothing but names is left


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_predict_reads_pure_python_configs(saved, task, tmp_path):
    cv2.imwrite(str(tmp_path / '1.png'), smooth(0))
    assert run(saved, task, tmp_path / '1.png', '--out-dir',
               tmp_path / 'out') == 0
    assert read(tmp_path / 'out/predictions.json')


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_training_options_apply_to_pure_python_configs(saved, task, tmp_path):
    cfg = read_config(saved[task][0])
    use_amp(cfg)
    assert bare_name(cfg.optim_wrapper.type) == 'AmpOptimWrapper'
    show_predictions(cfg, False, str(tmp_path), 1, 0)
    assert 'visualization' in cfg.default_hooks


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_tools_read_pure_python_configs(saved, task, tmp_path, capsys):
    tool('print_config')([saved[task][0]])
    assert 'hrformer_mm.HRFormer' in capsys.readouterr().out
    tool('analysis/get_flops')([saved[task][0], '--shape', '64', '64'])
    assert 'parameters' in capsys.readouterr().out
    tool('publish_model')([saved[task][1], str(tmp_path / 'a.pth'),
                           '--config', saved[task][0]])
    assert list(tmp_path.glob('*.pth'))


@pytest.mark.slow
@pytest.mark.parametrize('task', ['pose', 'cls'])
def test_export_reads_pure_python_configs(saved, task, tmp_path):
    pytest.importorskip('onnxruntime')
    shape = [] if task == 'pose' else ['--shape', '64', '64']
    tool('export')([*saved[task], *shape, '--post', '--format', 'torch-export',
                    '--out', str(tmp_path / 'a.pt2')])
    assert (tmp_path / 'a.pt2').stat().st_size > 1e4


def write_valid_coco(folder):
    """A dataset without keypoints outside of images, which checks refuse."""
    data = write_tiny_coco(folder)
    for path in (data / 'annotations').glob('*.json'):
        content = json.loads(path.read_text())
        for ann in content.get('annotations', ()):
            x, y, w, h = ann['bbox']
            ann['bbox'] = [x, y, min(w, 119 - x), min(h, 109 - y)]
            points = ann['keypoints']
            points[0::3] = [min(p, 118) for p in points[0::3]]
            points[1::3] = [min(p, 108) for p in points[1::3]]
        path.write_text(json.dumps(content))
    return data


def passes(name, args):
    """Run a tool that may leave with an exit code, which must be 0."""
    try:
        tool(name)(args)
    except SystemExit as left:
        assert not left.code


@pytest.mark.slow
def test_training_tools_read_pure_python_configs(saved, form, tmp_path):
    data = write_valid_coco(tmp_path / 'coco')
    old = read_config(saved['pose'][0]).data_root
    part = ['--data-root', str(data)] if old else []
    more = ['--cfg-options', *(
        f'{loader}.dataset.{key}' for loader, name in (
            ('train_dataloader', 'train'), ('val_dataloader', 'val'),
            ('test_dataloader', 'val')) for key in (
                f'ann_file=annotations/person_keypoints_{name}2017.json',
                f'data_prefix.img={name}2017/'))]
    work = ['--work-dir', str(tmp_path / 'work')]
    passes('check_dataset', [saved['pose'][0], *part, *more])
    tool('browse_dataset')([saved['pose'][0], *part, *more, '--out-dir',
                            str(tmp_path / 'sheets'), '--number', '2'])
    # Runners share what has the same name within a process.
    names = [[f'experiment_name={name}', f'visualizer.name={name}']
             for name in (f'dry_{form}', f'train_{form}', f'test_{form}')]
    passes('train', [saved['pose'][0], *part, *work, *more, *names[0], '--amp',
                     '--dry-run'])
    tool('train')([saved['pose'][0], *part, *work, *more, *names[1]])
    last, = (tmp_path / 'work').glob('epoch_*.pth')
    tool('test')([saved['pose'][0], str(last), *part, *work, *more, *names[2],
                  '--show-dir', str(tmp_path / 'shown')])
    assert list((tmp_path / 'shown').rglob('*.*'))


@pytest.mark.parametrize('kind, wanted', [
    ('mmseg.LoadAnnotations', 'mmseg.LoadAnnotations'),
    ('LoadAnnotations', 'LoadAnnotations'),
    ('mmpose.datasets.transforms.LoadImage', 'mmpose.LoadImage'),
    ('torch.optim.adamw.AdamW', 'AdamW'),
    ('no.such.module.Thing', 'no.such.module.Thing'),
    (dict, dict),
])
def test_all_forms_of_a_type_are_converted(kind, wanted):
    import mmpose.datasets  # noqa: F401
    assert name_type(kind) == wanted


def test_a_plain_config_is_returned_unchanged():
    cfg = Config(dict(default_scope='mmpose', model=dict(type='X')))
    assert name_types(cfg) is cfg
