# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Properties of the configs of all tasks."""
import ast
import re

import pytest
from helpers import CONFIGS
from mmengine.config import Config

CONFIG_FILES = sorted(CONFIGS.glob('[!_]*/*.py'))
FRAGMENTS = sorted(CONFIGS.glob('_base_/**/*.py'))
# One of each task and dataset, for what takes a while.
FIRST = list({(path.parent.name, *path.stem.split('_')[2:3]): path
              for path in reversed(CONFIG_FILES)}.values())
# <model>_<size>_<dataset>_<input>[_<change>]*
GRAMMAR = re.compile(r'[a-z0-9-]+_[a-z0-9-]+_[a-z0-9-]+_\d+(x\d+)?'
                     r'(_[a-z0-9-]+)*')


def name(path):
    return str(path.relative_to(CONFIGS))


def code_lines(path):
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith('#')]


def bases_and_own(path, folder):
    """Split a config into what it inherits and what it sets itself."""
    tree = ast.parse(path.read_text())
    bases = []
    for node in list(tree.body):
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            bases = ast.literal_eval(node.value)
            tree.body.remove(node)
    bases = [bases] if isinstance(bases, str) else bases
    child = folder / 'bases.py'
    child.write_text(f'_base_ = {[str(path.parent / b) for b in bases]}')
    inherited = Config.fromfile(child)._cfg_dict
    own = dict(_base_=inherited)
    exec(compile(tree, str(path), 'exec'), own)
    return inherited, {k: v for k, v in own.items() if not k.startswith('_')}


def unchanged(own, inherited, key=()):
    """Keys that a config writes although its bases say the same."""
    for k, value in own.items():
        before = inherited.get(k)
        if isinstance(value, dict) and isinstance(before, dict):
            if not value.get('_delete_'):
                yield from unchanged(value, before, (*key, k))
        elif k in inherited and value == before:
            yield '.'.join((*key, k))


def test_there_are_configs_of_all_tasks():
    assert {path.parent.name for path in CONFIG_FILES} == {
        'cls', 'det', 'pose', 'seg'}


@pytest.mark.parametrize('path', CONFIG_FILES, ids=name)
def test_config_name_follows_the_naming_scheme(path):
    if not path.stem.startswith('custom_'):  # to be copied and renamed
        assert GRAMMAR.fullmatch(path.stem)


@pytest.mark.parametrize('path', CONFIG_FILES, ids=name)
def test_config_sets_only_what_differs_from_its_bases(path, tmp_path):
    inherited, own = bases_and_own(path, tmp_path)
    assert list(unchanged(own, inherited)) == []


@pytest.mark.parametrize('path', [
    path if path in FIRST else pytest.param(path, marks=pytest.mark.slow)
    for path in CONFIG_FILES], ids=name)
def test_config_can_be_dumped_and_read(path, tmp_path):
    cfg = Config.fromfile(path)
    cfg.dump(tmp_path / 'row.py')
    assert Config.fromfile(tmp_path / 'row.py').to_dict() == cfg.to_dict()


def test_configs_inherit_from_this_package_only():
    assert [p for p in CONFIG_FILES + FRAGMENTS if '::' in p.read_text()] == []


def test_configs_stay_within_their_line_limits():
    sizes = {name(path): len(code_lines(path))
             for path in CONFIG_FILES + FRAGMENTS}
    # Configs of small datasets carry a schedule of their own, and fragments
    # of these the names of what is in the data.
    small = ('synthetic', 'digits', 'scenes', 'custom', 'lspet', 'openfield',
             'fly', 'camvid')
    limits = {}
    for k in sizes:
        is_small = any(name in k for name in small)
        leaf, fragment = (20, 60) if is_small else (12, 40)
        limits[k] = fragment if '_base_' in k else leaf
    assert {k: v for k, v in sizes.items() if v > limits[k]} == {}
