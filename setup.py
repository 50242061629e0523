# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Installs the package with the configs and tools that ``mim`` looks for.

``mim`` and mmengine read ``hrformer_mm/.mim``. A wheel and a source archive
get copies; an editable install, in which edits must show, gets links. All the
rest is in setup.cfg.
"""
import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop
from setuptools.command.egg_info import egg_info
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
MIM = ('configs', 'tools', 'model-index.yml')
# The latter tools need a checkout: they lint and test it.
IGNORED = shutil.ignore_patterns('__pycache__', '*.pyc', 'lint_language.py',
                                 'run_tests.sh', 'test_matrix.sh')


def remove(path: Path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def copy(source: Path, target: Path):
    if source.is_dir():
        shutil.copytree(source, target, ignore=IGNORED)
    else:
        shutil.copy2(source, target)


def link(source: Path, target: Path):
    """Link relatively, so that the checkout can move, or copy if need be."""
    try:
        target.symlink_to(
            os.path.relpath(source, target.parent), source.is_dir())
    except OSError:  # Windows without the right to make links
        copy(source, target)


def add_mim(package: Path, put=copy):
    """Put what ``mim`` looks for into a copy of the package."""
    remove(package / '.mim')
    (package / '.mim').mkdir(parents=True)
    for name in MIM:
        put(ROOT / name, package / '.mim' / name)


class BuildPy(build_py):
    """Makes a wheel, or prepares an editable install (PEP 660)."""

    def run(self):
        super().run()
        if self.editable_mode:
            add_mim(ROOT / 'hrformer_mm', link)
        else:
            add_mim(Path(self.build_lib) / 'hrformer_mm')


class EggInfo(egg_info):
    """Says where the package is, as mim does not ask Python.

    It joins site-packages and the name in top_level.txt, which is wrong for an
    editable install (PEP 660), unless that name is a whole path.
    """

    def run(self):
        super().run()
        if 'editable_wheel' in self.distribution.commands:
            path = Path(self.egg_info) / 'top_level.txt'
            path.write_text(f"{ROOT / 'hrformer_mm'}\n", encoding='utf-8')


class Develop(develop):
    """Makes an editable install the way of before PEP 660."""

    def run(self):
        add_mim(ROOT / 'hrformer_mm', link)
        super().run()


class Sdist(sdist):

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        add_mim(Path(base_dir) / 'hrformer_mm')


setup(
    cmdclass=dict(
        build_py=BuildPy, develop=Develop, egg_info=EggInfo, sdist=Sdist))
