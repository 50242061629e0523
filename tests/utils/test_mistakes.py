# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Invalid arguments of tools fail with one line that names the error."""
import io
from contextlib import redirect_stderr, redirect_stdout

import pytest
import torch
from helpers import CONFIGS, write_tiny_coco
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from tool_runs import OWN_CONFIG, tool

from hrformer_mm.utils.config_checks import wrong_types

# Looked for in vain, so that no training begins.
CONFIG = CONFIGS / 'pose/hrformer_t_coco_256x192.py'
NOWHERE = '/nowhere/data'

quick = settings(
    max_examples=30, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck))  # yapf: disable
values = st.one_of(
    st.sampled_from(['', '0', '-1', '1.5', '7', 'nan', 'True', 'None', '[]',
                     '[1]', '[7,7,7]', '(1,2,3,4)', '[a,b]', '[[7]]', 'tiny',
                     'window', "''", '{}', 'a b']),
    st.integers(-9, 99).map(str), st.text('abc-_.[](),0 ', max_size=8))
keys = st.sampled_from([
    *(f'model.backbone.{name}' for name in (
        'arch', 'type', 'in_channels', 'out_indices', 'window_size', 'ffn',
        'drop_path_rate', 'attention', 'block', 'rel_pos_bias', 'upsample',
        'mask_padding', 'with_cp', 'frozen_stages', 'norm_eval', 'extra',
        'init_cfg', 'nonsense')), 'model.head.in_channels', 'model.head.type',
    'model.head.loss', 'model.type', 'model.head', 'model.backbone', 'model',
    'model.data_preprocessor.mean', 'train_dataloader', 'val_dataloader',
    'train_dataloader.dataset', 'train_dataloader.dataset.data_root',
    'train_dataloader.dataset.ann_file', 'optim_wrapper.type',
    'optim_wrapper', 'default_scope', 'env_cfg', 'launcher', 'work_dir'])
free_keys = st.text('amodel._0 ', min_size=1, max_size=12).filter(
    lambda key: not key.startswith('-'))


def last_words(name, *args):
    """Return the error of a tool, which must be one line with code 2."""
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()):
        with pytest.raises(SystemExit) as exit:
            tool(name)([str(arg) for arg in args])
    text = said.getvalue()
    assert exit.value.code == 2, text
    assert 'Traceback' not in text
    line = text.strip().splitlines()[-1]
    assert line.count('error: ') == 1 and len(line) < 1500, line
    return line


@pytest.fixture(autouse=True)
def local_rank(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')


# Values and keys


@quick
@given(keys, values)
@example('model', '3')
@example('model.backbone', 'None')
@example('model.backbone.window_size', '[]')
@example('model.backbone.in_channels', '-1')
@example('train_dataloader', '[]')
@example('model.backbone.arch', '[,')
@example('model.backbone.arch', '),(')
@example('default_scope', '0')
def test_any_value_of_an_option_works_or_fails_with_one_line(key, value):
    if value.startswith('-') or not value.strip():
        value = f'"{value}"'
    last_words('train', CONFIG, '--data-root', NOWHERE, '--cfg-options',
               f'{key}={value}')


@quick
@given(free_keys)
@example('model..backbone')
@example('.')
@example('model.backbone.0')
@example('train_dataloader.dataset.pipeline.99.type')
@example('train_dataloader.dataset.pipeline.x')
def test_any_key_of_an_option_works_or_fails_with_one_line(key):
    last_words('train', CONFIG, '--data-root', NOWHERE, '--cfg-options',
               f'{key}=3')


@pytest.mark.parametrize('key, near', [
    ('modle.backbone.arch', 'model'),
    ('train_dataloder.batch_size', 'train_dataloader'),
    ('optim_wraper.optimizer.lr', 'optim_wrapper'),
])
def test_a_misspelled_key_suggests_the_nearest(key, near):
    assert repr(near) in last_words('train', CONFIG, '--cfg-options',
                                    f'{key}=3')


@pytest.mark.parametrize('option, near', [
    ('model.backbone.windowsize=7', "'window_size'"),
    ('model.backbone.frozen_stage=1', "'frozen_stages'"),
    ('model.backbone.type=hrformer_mm.HRFormr', "'hrformer_mm.HRFormer'"),
    ('model.type=TopDownPoseEstimator', "'TopdownPoseEstimator'"),
    ('model.head.inchannels=8', "'in_channels'"),
])
def test_a_misspelled_part_suggests_the_nearest(option, near):
    line = last_words('train', CONFIG, '--cfg-options', option)
    assert near in line.partition('Did you mean')[2], line


# Files


@settings(quick, max_examples=20)
@given(st.text(max_size=60))
@example('')
@example('model = dict(')
@example('model = nothing')
@example('_base_ = "nowhere.py"')
@example('_base_ = 3')
@example('import numpy as np\nx = np.zeros(3)[5]')
@example('model = dict(type="A")\n\x00')
@example('default_scope = "mmpose"')
@example('default_scope = "mmpose"\nmodel = 3')
def test_any_text_as_config_fails_with_one_line(tmp_path_factory, text):
    path = tmp_path_factory.mktemp('config') / 'row.py'
    path.write_bytes(text.encode('utf-8', 'replace'))
    for name in ('train', 'check_dataset'):
        last_words(name, path)


@pytest.mark.parametrize('name', ['row.json', 'row.yaml', 'row.txt', 'row'])
def test_configs_of_other_formats_fail_with_one_line(name, tmp_path):
    (tmp_path / name).write_text('{"model": ')
    assert name in last_words('train', tmp_path / name)


def test_a_folder_as_config_fails_with_one_line(tmp_path):
    assert str(tmp_path) in last_words('train', tmp_path)


# Values that only a run meets


@pytest.fixture(scope='module')
def own_config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('mistakes')
    (folder / 'row.py').write_text(OWN_CONFIG)
    write_tiny_coco(folder / 'coco')
    return [folder / 'row.py', '--data-root', folder / 'coco', '--work-dir',
            folder / 'work']  # yapf: disable


@pytest.mark.parametrize('option, says', [
    ('train_dataloader.batch_size=0', 'batch_size'),
    ('train_dataloader.batch_size=-2', 'batch_size'),
    ('train_dataloader.num_workers=-1', 'num_workers'),
    ('train_dataloader.num_worker=1', 'num_worker'),
    ('train_dataloader.sampler.type=Sampler', 'Sampler'),
    ('train_dataloader.dataset.type=CocoDatset', 'CocoDatset'),
    ('train_dataloader.dataset.pipeline.0.type=LoadImg', 'LoadImg'),
    ('optim_wrapper.optimizer.type=AdmW', "'AdamW'"),
    ('optim_wrapper.optimizer.lr=-1', 'learning rate'),
    ('optim_wrapper.optimizer.lrr=1', 'lrr'),
    ('param_scheduler.0.type=LinearLr', 'LinearLr'),
    ('param_scheduler.0.end=later', 'param_scheduler.0.end must be a whole'),
    ('optim_wrapper.optimizer.lr=low', 'optimizer.lr must be a number'),
    ('train_cfg.max_epochs=many', 'train_cfg.max_epochs must be a whole'),
    ('train_cfg.max_epochs=1.5', 'train_cfg.max_epochs must be a whole'),
    ('train_cfg.max_epochs=-1', 'train_cfg.max_epochs must be at least 1'),
    ('train_cfg.val_interval=0', 'train_cfg.val_interval must be at least 1'),
    ('train_cfg.val_interval=[2]', 'train_cfg.val_interval must be a whole'),
    ('default_hooks.checkpoint.interval=ten',
     'default_hooks.checkpoint.interval must be a whole number, got \'ten\''),
    ('default_hooks.logger.interval=often', 'default_hooks.logger.interval'),
    ('default_hooks.checkpoint.by_epoch=yes', 'must be True or False'),
    ('train_dataloader.num_workers=two', 'train_dataloader.num_workers must'),
    ('train_dataloader.batch_size=2.5', 'train_dataloader.batch_size must'),
    ('val_evaluator.type=Coco', 'Coco'),
    ('env_cfg=3', "'int' object"),
    ('randomness.seed=x', 'dtype'),
    ('visualizer.type=Visualiser', 'Visualiser'),
])
def test_a_value_used_only_during_a_run_fails_with_one_line(
        option, says, own_config):
    line = last_words('train', *own_config, '--cfg-options', option)
    assert says in line


@pytest.mark.parametrize('name, near', [
    ('IterTimerHok', 'IterTimerHook'),
    ('PoseVisualizationHok', 'PoseVisualizationHook'),
    ('hrformer_mm.ExactResumHook', 'hrformer_mm.ExactResumeHook'),
])
def test_a_misspelled_class_suggests_names_of_its_scope(name, near):
    cfg = Config.fromfile(CONFIG)
    cfg.custom_hooks = [dict(type=name)]
    error, = wrong_types(cfg)
    assert error.startswith(f'custom_hooks.0.type: {name} is not in the')
    assert f'Did you mean {near!r}' in error


@pytest.mark.slow
def test_the_types_of_every_config_are_valid():
    for path in sorted(CONFIGS.glob('[!_]*/*.py')):
        assert list(wrong_types(Config.fromfile(path))) == [], path


@pytest.mark.parametrize('content', [
    b'', b'not a checkpoint', b'PK\x03\x04', b'\x80\x02}q\x00.'],
    ids=['empty', 'text', 'zip', 'pickle'])  # yapf: disable
def test_a_file_that_is_not_a_checkpoint_fails_with_one_line(
        content, own_config, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    assert 'x.pth' in last_words('test', own_config[0], path, *own_config[1:])
    assert 'x.pth' in last_words('train', *own_config, '--resume', path)


def test_a_checkpoint_of_another_model_fails_with_one_line(own_config,
                                                           tmp_path):
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), tmp_path / 'x.pth')
    line = last_words('test', own_config[0], tmp_path / 'x.pth',
                      *own_config[1:])
    assert 'not the weights of an HRFormer' in line


@pytest.mark.parametrize('root', ['', '.', '/', '/dev/null', '\n', 'a' * 300])
def test_a_folder_without_data_fails_with_one_line(root, own_config):
    assert 'data' in last_words('train', own_config[0], '--data-root', root)
