# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Tests mirror the package and share code in helper modules only."""
import ast

from helpers import ROOT

TESTS = ROOT / 'tests'
FILES = sorted(TESTS.rglob('*.py'))
MODULES = [path for path in FILES if path.name.startswith('test_')]
# Folders that test what lies beside the package, and the project as a whole.
OTHERS = {'configs', 'tools', 'benchmarks', 'project'}


def imported_modules(path):
    """Yield the first part of each module that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split('.')[0]


def test_no_file_imports_a_test_module():
    names = {path.stem for path in MODULES} | {'conftest'}
    found = {path.name: names.intersection(imported_modules(path))
             for path in FILES}
    assert {name: used for name, used in found.items() if used} == {}


def test_names_of_test_files_are_unique():
    assert len({path.stem for path in FILES}) == len(FILES)


def test_folders_are_those_of_the_package():
    parts = {path.name for path in (ROOT / 'hrformer_mm').iterdir()}
    for path in MODULES:
        assert path.parent.parent == TESTS, path
        assert path.parent.name in parts | OTHERS, path
