# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Every kind of install carries what mim and mmengine look for."""
import os
import shutil
import subprocess
import tarfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from packaging.requirements import Requirement
from wheels import IGNORED, build_wheel, run

pytest.importorskip('pip')
pytest.importorskip('wheel')
EXTRAS = ('pose', 'seg', 'cls', 'det', 'dpt', 'timm', 'export', 'openvino',
          'demo', 'hub', 'test', 'dev', 'all')
# Tools that lint and test a checkout, of no use in an install.
FOR_CHECKOUTS = ('lint_language.py', 'run_tests.sh', 'test_matrix.sh')


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the checkout, as builds leave files in it."""
    return Path(shutil.copytree(ROOT, tmp_path / 'tree', ignore=IGNORED))


def without_pythonpath() -> dict:
    return {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}


def expected_files(tree: Path) -> set:
    """Of a checkout, below ``.mim`` of an install."""
    found = [
        p for name in ('configs', 'tools') for p in (tree / name).rglob('*')
        if p.is_file() and p.name not in FOR_CHECKOUTS
    ]
    return {p.relative_to(tree).as_posix()
            for p in found} | {'model-index.yml'}


def below(names, folder: str) -> set:
    """Names of files in a folder, relative to it."""
    return {
        name.partition(folder)[2]
        for name in names if folder in name and not name.endswith('/')
    }


def package_files(tree: Path) -> set:
    """Files of the package in a checkout that an install must carry."""
    return {
        path.relative_to(tree).as_posix()
        for path in (tree / 'hrformer_mm').rglob('*')
        if path.is_file() and path.suffix not in ('.pyc', '.pyo')
        and '.mim' not in path.parts
    }


def test_every_folder_with_modules_is_a_package():
    """Otherwise ``packages = find:`` drops it without a word."""
    folders = {path.parent for path in (ROOT / 'hrformer_mm').rglob('*.py')
               if '.mim' not in path.parts}
    missing = [str(f) for f in folders if not (f / '__init__.py').is_file()]
    assert not missing


def test_the_wheel_carries_every_file_of_the_package(tree, tmp_path):
    with build_wheel(tree, tmp_path) as wheel:
        names = wheel.namelist()
        assert below(names, 'hrformer_mm/.mim/') == expected_files(tree)
        carried = {name for name in names if '.mim' not in name.split('/')
                   and name.startswith('hrformer_mm/')}
        assert carried == package_files(tree)
        tops = {name.split('/')[0] for name in names}
        assert {t
                for t in tops
                if not t.endswith('.dist-info')} == {'hrformer_mm'}
        text = next(n for n in names if n.endswith('METADATA'))
        meta = Parser().parsestr(wheel.read(text).decode())
    assert sorted(meta.get_all('Provides-Extra')) == sorted(EXTRAS)
    needs = [Requirement(text) for text in meta.get_all('Requires-Dist')]
    assert {'chumpy', 'mmpose'}.isdisjoint(r.name for r in needs)
    core = {r.name for r in needs if r.marker is None}
    assert core == {'mmengine', 'torch'}
    oldest = meta['Requires-Python'].lstrip('>=')
    script = (tree / 'tools/setup_env.sh').read_text()
    assert f'Python {oldest} to ' in script


def test_the_source_archive_carries_them_and_builds_the_same_wheel(
        tree, tmp_path):
    run('setup.py', '-q', 'sdist', '-d', tmp_path, cwd=tree)
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        names = [m.name for m in archive.getmembers() if m.isfile()]
        archive.extractall(tmp_path / 'unpacked')
    assert below(names, 'hrformer_mm/.mim/') == expected_files(tree)
    source = next((tmp_path / 'unpacked').iterdir())
    for name in ('LICENSE', 'README.md', 'requirements/tested.txt',
                 'tests/helpers.py', 'tools/setup_env.sh'):
        assert (source / name).is_file()
    with build_wheel(source, tmp_path) as wheel:
        names = wheel.namelist()
        assert below(names, 'hrformer_mm/.mim/') == expected_files(tree)
        assert package_files(tree) <= set(names)


def is_linked(tree: Path) -> bool:
    mim = tree / 'hrformer_mm/.mim'
    return all((mim / name).is_symlink() and (mim / name).resolve() == (
        tree / name).resolve()
               for name in ('configs', 'tools', 'model-index.yml'))


def test_an_editable_install_links_to_the_checkout(tree, tmp_path):
    mim = tree / 'hrformer_mm/.mim'
    (mim / 'configs').mkdir(parents=True)  # left by an install before
    env = tmp_path / 'env'
    run('-m',
        'venv',
        '--system-site-packages',
        '--without-pip',
        env,
        cwd=tmp_path)
    site = next(env.glob('lib/*/site-packages'))
    run('-m',
        'pip',
        'install',
        '-q',
        '--no-deps',
        '--no-build-isolation',
        '--use-pep517',  # or old releases of pip ignore the target
        '--target',
        site,
        '-e',
        tree,
        cwd=tmp_path)
    assert is_linked(tree)
    assert not (mim / 'configs').readlink().is_absolute()
    code = ('import importlib.util as u;'
            'print(u.find_spec("hrformer_mm").origin)')
    found = subprocess.check_output([env / 'bin/python', '-c', code],
                                    cwd=tmp_path,
                                    env=without_pythonpath(),
                                    text=True)
    assert found.strip() == str(tree / 'hrformer_mm/__init__.py')
    # How mim finds the package, as it joins this to site-packages.
    name = next(site.glob('hrformer_mm-*.dist-info/top_level.txt'))
    assert site / name.read_text().strip() == tree / 'hrformer_mm'


def test_a_wheel_of_a_checkout_that_is_installed_holds_no_links(
        tree, tmp_path):
    run('-c',
        'import setup; setup.add_mim(setup.ROOT / "hrformer_mm", setup.link)',
        '--version',
        cwd=tree)
    assert is_linked(tree)
    with build_wheel(tree, tmp_path) as wheel:
        assert below(wheel.namelist(),
                     'hrformer_mm/.mim/') == expected_files(tree)
    assert is_linked(tree)


def test_links_that_are_not_allowed_become_copies(tree):
    run('-c', 'import pathlib, setup\n'
        'def refuse(*args): raise OSError("no right to make links")\n'
        'pathlib.Path.symlink_to = refuse\n'
        'setup.add_mim(setup.ROOT / "hrformer_mm", setup.link)',
        '--version',
        cwd=tree)
    mim = tree / 'hrformer_mm/.mim'
    assert not (mim / 'configs').is_symlink()
    assert (mim / 'model-index.yml').read_bytes() == (
        tree / 'model-index.yml').read_bytes()
    assert (mim / 'tools/train.py').is_file()


def test_the_index_names_the_metafile_of_each_task():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert index['Import'] == [
        f'configs/{task}/metafile.yml'
        for task in ('pose', 'seg', 'cls', 'det')
    ]
    for path in index['Import']:
        assert (ROOT / path).is_file()


def test_pinned_versions_lie_in_the_ranges_of_the_extras():
    """Otherwise the environment of the tests could not be installed."""

    def read(name: str):
        lines = (ROOT / f'requirements/{name}.txt').read_text().splitlines()
        return [Requirement(s) for s in lines if s and not s.startswith('#')]

    pins = {
        r.name: str(r.specifier)[2:]
        for r in read('tested') if str(r.specifier).startswith('==')
    }
    for name in ('runtime', 'pose', 'seg', 'cls', 'det', 'dpt', 'demo', 'hub',
                 'export', 'openvino', 'tests'):
        for wanted in read(name):
            if wanted.name in pins:
                assert pins[wanted.name] in wanted.specifier, wanted


def test_extras_are_read_from_their_files():
    cfg = ConfigParser()
    cfg.read(ROOT / 'setup.cfg')
    files = ' '.join(cfg['options.extras_require'].values())
    for path in (ROOT / 'requirements').glob('*.txt'):
        if path.stem not in ('runtime', 'tested', 'oldest'):
            assert f'requirements/{path.name}' in files
