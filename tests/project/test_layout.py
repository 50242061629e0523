# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Import layers of the package, and deprecated module names."""
import ast
import re
import sys
import warnings
from graphlib import TopologicalSorter
from importlib import import_module

import pytest
from helpers import ROOT

from hrformer_mm.utils.moved import MOVED

PACKAGE = ROOT / 'hrformer_mm'
# A package may import those of its own floor and below, none above.
FLOORS = (
    ('version', 'compat', 'registry', 'tasks'),
    ('utils', 'core'),
    ('visualization', 'checkpoints'),
    ('datasets', 'models'),
    ('engine', ),
    ('zoo', ),
    ('deploy', ),
    ('apis', ),
    ('quickstart', '__main__', 'timm'),
)
FLOOR = {room: i for i, floor in enumerate(FLOORS) for room in floor}
MODULES = sorted(PACKAGE.rglob('*.py'))


def imports(path):
    """Yield the absolute names that a file of the package imports."""
    parts = path.relative_to(ROOT).with_suffix('').parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[:len(parts) - node.level + 1] if node.level else ()
            module = [*base, *(node.module.split('.') if node.module else ())]
            yield from ('.'.join([*module, alias.name])
                        for alias in node.names)


def room(name):
    """Return the top-level part of the package that a name belongs to."""
    parts = name.split('.')
    return parts[1] if parts[0] == 'hrformer_mm' and len(parts) > 1 else None


def arrows():
    """Map each pair (importing room, imported room) to its files."""
    found = {}
    for path in MODULES:
        if path.parent == PACKAGE and path.name == '__init__.py':
            continue
        here = path.relative_to(PACKAGE).with_suffix('').parts[0]
        for name in imports(path):
            there = room(name)
            if there in FLOOR and there != here:
                found.setdefault((here, there), set()).add(path.name)
    return found


def test_every_part_of_the_package_has_a_layer():
    rooms = {path.relative_to(PACKAGE).with_suffix('').parts[0]
             for path in MODULES if '.mim' not in path.parts}
    assert rooms - {'__init__'} == set(FLOOR)


def test_no_part_imports_a_higher_layer():
    up = {pair: files for pair, files in arrows().items()
          if FLOOR[pair[0]] < FLOOR[pair[1]]}
    assert not up


def test_there_are_no_circular_imports_between_parts():
    found = arrows()
    assert not [pair for pair in found if pair[::-1] in found]


def test_no_module_imports_itself_through_others():
    files = {'.'.join(path.relative_to(ROOT).with_suffix('').parts
                      ).removesuffix('.__init__'): path
             for path in MODULES if '.mim' not in path.parts}
    graph = {module: {name if name in files else name.rpartition('.')[0]
                      for name in imports(path)} & files.keys() - {module}
             for module, path in files.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules


@pytest.mark.parametrize('part', ['core'])
def test_core_imports_torch_and_the_standard_library_only(part):
    allowed = {*sys.stdlib_module_names, 'torch', 'hrformer_mm'}
    for path in (PACKAGE / part).rglob('*.py'):
        for name in imports(path):
            is_kernel = path.parent.name == 'triton' and name.startswith(
                'triton')  # it comes with PyTorch's CUDA builds
            assert is_kernel or name.split('.')[0] in allowed, (path.name,
                                                                name)
            assert room(name) in (None, part), (path.name, name)


CORE = [path for path in MODULES if path.parent == PACKAGE / 'core']
DEVICE_SPECIFIC = ('torch.ops', 'torch.backends', 'torch.cuda',
                   'device.type', 'is_cuda')


@pytest.mark.parametrize('path', CORE, ids=lambda p: p.stem)
def test_only_the_kernels_of_the_core_are_device_specific(path):
    used = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)}
    assert [name for name in used if name.endswith(DEVICE_SPECIFIC)] == []


@pytest.mark.parametrize('path', CORE, ids=lambda p: p.stem)
def test_functions_of_the_core_are_short(path):
    lengths = {node.name: node.end_lineno - node.lineno + 1
               for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.FunctionDef)}
    assert {n: length for n, length in lengths.items() if length > 40} == {}


def test_the_top_of_the_package_is_small():
    # Packages of OpenMMLab have four of these files. py.typed and .mim are for
    # type checkers and mim, not for readers.
    files = {'__init__.py', '__main__.py', 'registry.py', 'version.py',
             'tasks.py', 'timm.py'}
    entries = {path.name for path in PACKAGE.iterdir()
               if path.name not in ('__pycache__', '.mim', 'py.typed')}
    assert {name for name in entries if '.' in name} == files
    assert len(entries) <= 18


LAYERS = 'the same operation: for PyTorch, and in Triton below it'
PER_TASK = 'the same step for each task, called by the name of its module'
SHARED_NAMES = {  # name: why several modules may define it
    'Block': 'the layer of the core, and how ONNX gets it',
    'HRFormer': 'the network of the core, and its wrappers',
    'WindowAttention': 'the layer of the core, and how ONNX gets it',
    'add_norm': LAYERS, 'add_norm_backward': LAYERS,
    'batch_statistics': LAYERS,
    'check_heads': PER_TASK, 'check_leaf': PER_TASK, 'check_leaves': PER_TASK,
    'check_samples': PER_TASK, 'depthwise': LAYERS, 'draw': PER_TASK,
    'fuse': LAYERS, 'install': 'what the package does when it is imported',
    'main': 'of programs', 'next_commands': PER_TASK,
}


def test_a_public_name_has_one_meaning():
    places = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                places.setdefault(node.name, []).append(path.name)
    shared = {name: files for name, files in places.items()
              if len(files) > 1 and not name.startswith('_')}
    assert shared.keys() == SHARED_NAMES.keys()


def test_old_names_of_modules_hide_nothing():
    for old in MOVED:
        parent, _, name = old.rpartition('.')
        if parent and parent not in MOVED:
            package = import_module(f'hrformer_mm.{parent}')
            assert name not in getattr(package, '__all__', ()), old


@pytest.mark.parametrize('old', ['Report', 'describe', 'write_truths'])
def test_old_names_of_checkpoints_work_with_a_warning(old):
    from hrformer_mm import checkpoints
    new = checkpoints.RENAMED[old]
    with pytest.warns(DeprecationWarning, match=f'is now {new}'):
        assert getattr(checkpoints, old) is getattr(checkpoints, new)


def test_old_names_of_modules_work_with_a_warning():
    pytest.importorskip('mmpose')
    pytest.importorskip('mmseg')
    for old, target in MOVED.items():
        new = import_module(f'hrformer_mm.{target}')
        sys.modules.pop(f'hrformer_mm.{old}', None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            found = import_module(f'hrformer_mm.{old}')
        assert any(target in str(warning.message) for warning in caught), old
        for name, value in vars(new).items():
            if getattr(value, '__module__', '') == new.__name__:
                assert getattr(found, name) is value


def test_the_walks_through_the_code_name_what_exists():
    text = (ROOT / 'docs/architecture.md').read_text()
    steps = re.findall(r'`([\w/]+\.py)`:\s+((?:`\w+`(?:,? and |, )?)+)', text)
    assert len(steps) > 20
    for path, names in steps:
        tree = ast.parse((PACKAGE / path).read_text(encoding='utf-8'))
        defined = {getattr(node, 'name', None) for node in ast.walk(tree)}
        assert set(re.findall(r'\w+', names)) - {'and'} <= defined, path
