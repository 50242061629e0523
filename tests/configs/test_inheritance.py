# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Configs that inherit ours by ``hrformer_mm::`` build and train."""
import os
import subprocess
import sys

import pytest
from helpers import ROOT, run_training, shorten
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from tiny_tasks import CONFIG_FILES, OPTIONS, task_config

from hrformer_mm import compat, zoo
from hrformer_mm.engine.train import set_data_root

TASKS = dict(pose='mmpose', seg='mmseg', cls='mmpretrain')
CONFIGS = dict(pose='pose/hrformer_t_coco_256x192.py',
               seg='seg/hrformer_t_cityscapes_512x1024.py',
               cls='cls/hrformer_t_imagenet_224.py')  # yapf: disable
CHANGE = """
model = dict(backbone=dict(
    drop_path_rate=0., init_cfg=None,
    arch=dict(_delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
              modules=(1, 1, 1), blocks=1)))
"""


@pytest.fixture(autouse=True)
def skip_without_configs():
    if not (ROOT / 'hrformer_mm/.mim').exists():
        pytest.skip('hrformer_mm is not installed')


def inherit(base, folder, change=CHANGE):
    path = folder / 'mine.py'
    path.write_text(f"_base_ = {base!r}\n{change}")
    return path


def scopes(value):
    """All values of ``_scope_`` in a nested config."""
    if isinstance(value, dict):
        found = [value['_scope_']] if '_scope_' in value else []
        return found + [s for v in value.values() for s in scopes(v)]
    if isinstance(value, (list, tuple)):
        return [s for v in value for s in scopes(v)]
    return []


@pytest.mark.parametrize('task', TASKS)
def test_an_inherited_config_equals_the_one_of_the_checkout(task, tmp_path):
    pytest.importorskip(TASKS[task])
    mine = Config.fromfile(
        inherit(f'hrformer_mm::{CONFIGS[task]}', tmp_path, ''))
    theirs = Config.fromfile(ROOT / 'configs' / CONFIGS[task])
    assert mine.to_dict() == theirs.to_dict()
    assert scopes(mine.to_dict()) == []
    assert get_config(
        f'hrformer_mm::{CONFIGS[task]}').to_dict() == theirs.to_dict()


@pytest.mark.parametrize('task', TASKS)
def test_an_inherited_config_builds_its_frameworks_model(task, tmp_path):
    pytest.importorskip(TASKS[task])
    cfg = Config.fromfile(inherit(f'hrformer_mm::{CONFIGS[task]}', tmp_path))
    cfg.merge_from_dict(OPTIONS[task])
    init_default_scope(cfg.default_scope)
    model = zoo.build_model(cfg)
    assert type(model).__module__.startswith(TASKS[task])
    assert type(model.backbone).__module__ == 'hrformer_mm.models.backbones'


@pytest.mark.parametrize('task', TASKS)
def test_an_inherited_config_trains(task, tmp_path):
    """Through the config's text, as a user's file would give it."""
    pytest.importorskip(TASKS[task])
    expected = task_config(task, tmp_path, samples=4, passes=1)  # makes data
    cfg = Config.fromfile(
        inherit(f'hrformer_mm::{CONFIG_FILES[task]}', tmp_path))
    set_data_root(cfg, str(tmp_path / 'data'))
    cfg.merge_from_dict(OPTIONS[task])
    shorten(cfg)
    cfg.sync_bn = None
    cfg.work_dir = str(tmp_path / 'run')
    cfg.experiment_name = cfg.visualizer.name = f'inherited_{task}'
    runner = run_training(cfg)
    assert runner.iter == 2
    assert type(runner.model).__module__.startswith(TASKS[task])
    assert expected.default_scope == cfg.default_scope


def test_bases_of_other_packages_keep_their_scope():
    def find(base, filename):
        return f'/{base}', base.partition('::')[0] or None

    wrapped = compat.without_our_scope(find)
    assert wrapped('mmdet::a/b.py', 'x') == ('/mmdet::a/b.py', 'mmdet')
    assert wrapped('hrformer_mm::a/b.py', 'x')[1] is None
    before = Config._get_cfg_path
    compat.install()
    assert Config._get_cfg_path is before  # not wrapped again


def test_tools_that_do_not_import_the_package_can_inherit(tmp_path):
    """As MMPose's own do: the expression after ``_base_`` is evaluated."""
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = __import__('hrformer_mm') and (\n"
                    f"    'hrformer_mm::{CONFIGS['pose']}')\n{CHANGE}")
    code = ('from mmengine.config import Config\n'
            f'cfg = Config.fromfile({str(path)!r})\n'
            'print(cfg.model.type, cfg.model.get("_scope_"))')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code],
                          env=dict(os.environ, PYTHONPATH=str(ROOT)),
                          capture_output=True, text=True)  # yapf: disable
    assert done.stdout.split() == ['TopdownPoseEstimator', 'None'], done.stderr
