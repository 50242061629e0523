# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The wheel works where the checkout is not: all of it, for every task.

It is installed into a virtual environment in another folder, which sees the
packages of the environment that runs the tests but not its hrformer_mm.
"""
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import ROOT, package_folders, write_tiny_coco
from wheels import IGNORED, build_wheel, run

pytestmark = pytest.mark.slow
for name in ('mmpose', 'mmseg', 'mmpretrain', 'mim', 'wheel'):
    if find_spec(name) is None:
        pytest.skip(f'needs {name}', allow_module_level=True)

MODULES = '''
import sys
from importlib import import_module
from pkgutil import walk_packages
import hrformer_mm
for module in walk_packages(hrformer_mm.__path__, 'hrformer_mm.'):
    if not module.name.endswith('__main__'):
        import_module(module.name)
    print(module.name)
'''
ENTRIES = '''
import inspect
from hrformer_mm import registry
for value in list(vars(registry).values()):
    if isinstance(value, registry.LazyRegistry):
        for name in value.entries:
            found = value.get('hrformer_mm.' + name)
            print(name, inspect.getfile(found))
'''
CONFIGS = '''
import sys
from pathlib import Path
import torch
import hrformer_mm
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
for name in dir(torch.nn.init):  # saves time; the values are not looked at
    if name.endswith('_') and not name.startswith('_'):
        setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
root = Path(hrformer_mm.__file__).parent / '.mim/configs'
for path in sorted(root.rglob('*.py')):
    if '_base_' in path.parts:
        continue
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        MODELS.build(cfg.model)
    print(path.relative_to(root))
'''
INHERITED = {
    'pose': 'pose/hrformer_t_coco_256x192.py',
    'seg': 'seg/hrformer_s_cityscapes_512x1024.py',
    'cls': 'cls/hrformer_t_imagenet_224.py'
}
TRAIN = '''
import sys
import hrformer_mm
from mmengine.config import Config
from mmengine.runner import Runner
cfg = Config.fromfile(sys.argv[1])
cfg.work_dir = sys.argv[2]
Runner.from_cfg(cfg).train()
'''
SHORT = '''
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(data_root='{data}', indices=4))
val_dataloader = dict(num_workers=0, persistent_workers=False,
                      dataset=dict(data_root='{data}', indices=4,
                                   bbox_file=None))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file='{data}/annotations/person_keypoints_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=1)
model = dict(
    backbone=dict(
        init_cfg=None,
        arch=dict(_delete_=True, channels=(8, 16, 32, 64),
                  heads=(1, 1, 2, 4), modules=(1, 1, 1), blocks=1)),
    head=dict(in_channels=8))
'''


class Installed:
    """A virtual environment with the wheel."""

    def __init__(self, folder: Path):
        tree = shutil.copytree(ROOT, folder / 'tree', ignore=IGNORED)
        build_wheel(tree, folder)
        shutil.rmtree(tree)
        self.env, self.folder = folder / 'env', folder / 'elsewhere'
        self.folder.mkdir()
        run('-m', 'venv', '--without-pip', self.env, cwd=folder)
        self.site = next(self.env.glob('lib*/python*/site-packages'))
        # Lines of such a file are searched, but their .pth files, as that of
        # an editable install, are not read.
        (self.site / 'base.pth').write_text(package_folders())
        wheel = next(folder.glob('*.whl'))
        run('-m', 'pip', '--python', self.python, 'install', '-q', '--no-deps',
            '--no-cache-dir', wheel, cwd=folder)  # yapf: disable

    @property
    def python(self) -> Path:
        return self.env / 'bin/python'

    def call(self, *command) -> str:
        """Run a command of the environment, away from the checkout."""
        environment = {
            k: v for k, v in os.environ.items() if k != 'PYTHONPATH'
        }
        environment.update(
            PATH=f"{self.env / 'bin'}:{environment['PATH']}",
            VIRTUAL_ENV=str(self.env),
            PYTHONWARNINGS='ignore')
        done = subprocess.run(list(map(str, command)),
                              cwd=self.folder,
                              env=environment,
                              stdin=subprocess.DEVNULL,
                              capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def code(self, text: str, *args) -> list[str]:
        return self.call(self.python, '-c', text, *args).splitlines()


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Installed:
    return Installed(tmp_path_factory.mktemp('wheel'))


def test_the_package_comes_from_the_wheel(installed):
    (path, ) = installed.code(
        'import hrformer_mm; print(hrformer_mm.__file__)')
    assert Path(path) == installed.site / 'hrformer_mm/__init__.py'


def test_every_module_is_imported(installed):
    wanted = {
        '.'.join(path.with_suffix('').relative_to(ROOT).parts).removesuffix(
            '.__init__')
        for path in (ROOT / 'hrformer_mm').rglob('*.py')
        if '.mim' not in path.parts
    }
    assert set(installed.code(MODULES)) >= wanted - {'hrformer_mm'}


def test_every_entry_of_the_registries_is_found(installed):
    from hrformer_mm import registry
    found = dict(line.split(maxsplit=1) for line in installed.code(ENTRIES)
                 if line.count(' ') == 1)  # yapf: disable
    wanted = {name for value in vars(registry).values()
              if isinstance(value, registry.LazyRegistry)
              for name in value.entries}  # yapf: disable
    assert wanted <= set(found)
    assert all(Path(found[name]).is_relative_to(installed.site)
               for name in wanted)  # yapf: disable


def test_the_model_of_every_config_is_built(installed):
    wanted = {
        path.relative_to(ROOT / 'configs').as_posix()
        for path in (ROOT / 'configs').rglob('*.py')
        if '_base_' not in path.parts
    }
    assert wanted <= set(installed.code(CONFIGS))


@pytest.mark.parametrize('task', INHERITED)
def test_a_config_is_inherited_and_built(installed, task):
    path = installed.folder / f'own_{task}.py'
    path.write_text(f"_base_ = 'hrformer_mm::{INHERITED[task]}'\n"
                    'model = dict(backbone=dict(drop_path_rate=0.5))\n')
    out = installed.code(
        'import sys\n'
        'import hrformer_mm\n'
        'from mmengine.config import Config\n'
        'from mmengine.registry import MODELS, init_default_scope\n'
        'cfg = Config.fromfile(sys.argv[1])\n'
        'init_default_scope(cfg.default_scope)\n'
        'print(type(MODELS.build(cfg.model).backbone).__module__)', path)
    assert out[-1] == 'hrformer_mm.models.backbones'


@pytest.fixture(scope='module')
def own_config(installed) -> Path:
    """A config of four images that inherits one of the wheel."""
    data = write_tiny_coco(installed.folder / 'coco')
    path = installed.folder / 'own_short.py'
    path.write_text(f"_base_ = 'hrformer_mm::{INHERITED['pose']}'\n" +
                    SHORT.format(data=data))
    return path


def test_an_inherited_config_trains_with_the_runner(installed, own_config,
                                                    tmp_path):
    installed.code(TRAIN, own_config, tmp_path)
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_mim_trains_with_the_package(installed, own_config, tmp_path):
    mim = 'import sys; from mim.cli import cli; sys.exit(cli())'
    installed.call(installed.python, '-c', mim, 'train', 'hrformer_mm',
                   own_config, '--gpus', 0, '--work-dir', tmp_path)
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('task', INHERITED)
def test_the_quickstart_of_the_wheel_trains(installed, task):
    tools = installed.site / 'hrformer_mm/.mim/tools'
    work_dir = installed.folder / f'quick_{task}'
    installed.call(
        installed.python, tools / 'quickstart.py', '--task', task, '--epochs',
        1, '--train-images', 8, '--val-images', 4, '--work-dir', work_dir,
        '--cfg-options', 'train_dataloader.batch_size=4',
        *(f'{loader}.{option}' for loader in (
            'train_dataloader', 'val_dataloader')
          for option in ('num_workers=0', 'persistent_workers=False')))
    assert list(work_dir.glob('*.pth')) and (
        work_dir / 'predictions.png').is_file()


def test_commands_run(installed):
    assert 'predict' in installed.call(installed.env / 'bin/hrformer-mm',
                                       '--help')
    out = installed.call(installed.python, '-m', 'hrformer_mm.check_env',
                         '--offline')
    assert 'mmpose' in out and 'BROKEN' not in out
