# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checkpoints that our own training wrote can be read, dangerous ones not."""
import collections
import datetime
import decimal
import fractions
import inspect
import os
import pathlib
import pickle
from functools import lru_cache
from importlib import import_module

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleLR  # which registers all schedulers
from mmengine.registry import PARAM_SCHEDULERS
from torch.torch_version import TorchVersion

import hrformer_mm
from hrformer_mm.checkpoints import files, read_checkpoint
from hrformer_mm.compat.harmless import PLAIN, RestrictedPickle

# Both ways of reading: by torch's own list, which torch 2.6 began, and ours.
READERS = {'restricted': dict(weights_only=False,
                              pickle_module=RestrictedPickle)}
if TorchVersion(torch.__version__) >= (2, 6):
    READERS['torch'] = dict(weights_only=True)
DTYPES = sorted({np.dtype(c) for c in PLAIN} - {np.dtype(c) for c in 'mM'},
                key=str) + [np.dtype('M8[s]'), np.dtype('m8[ms]')]


@pytest.fixture(params=READERS)
def reader(request, monkeypatch):
    monkeypatch.setattr(files, 'protection', lambda: READERS[request.param])


def through_a_file(value, folder, **options):
    """A value as it comes back from a checkpoint's meta."""
    path = folder / 'checkpoint.pth'
    torch.save(dict(meta=value, state_dict=dict(w=torch.ones(2))), path,
               **options)
    return read_checkpoint(path)['meta']


def same(first, second):
    """Whether nested values are equal, in type as well."""
    if isinstance(first, collections.deque):
        return same(list(first), second)
    if isinstance(first, collections.defaultdict):
        return same(dict(first), second)
    if type(first) is not type(second):
        return False
    if isinstance(first, (np.ndarray, np.generic)):
        return first.dtype == second.dtype and first.shape == second.shape \
            and first.tobytes() == second.tobytes()
    if isinstance(first, dict):
        return [*first] == [*second] and all(
            same(v, second[k]) for k, v in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


VALUES = [
    b'', b'\x00\xff', bytearray(b'ab'), 2**40, -2**70, 1e-300, 1 + 2j, None,
    True, ..., 'text', (), [], {}, {1, 2}, frozenset([1]), slice(1, None, 2),
    range(3, 9, 2), collections.OrderedDict(b=1, a=2),
    collections.Counter('aab'), collections.deque([1, 2], 5),
    collections.defaultdict(list, a=[1], b=[2]),
    ConfigDict(a=ConfigDict(b=[dict(c=1)])), datetime.date(2026, 1, 2),
    datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone.utc),
    datetime.time(1, 2), datetime.timedelta(1, 2), decimal.Decimal('1.50'),
    fractions.Fraction(1, 3), pathlib.Path('a/b'),
    pathlib.PurePosixPath('/a'), pathlib.PureWindowsPath('c:\\a'), np.float32,
    np.bool_, float, torch.float16, torch.Size([1, 2]), torch.device('cpu'),
]  # yapf: disable


@pytest.mark.parametrize('value', VALUES, ids=repr)
def test_harmless_values_load_unchanged(value, tmp_path, reader):
    assert same(value, through_a_file(value, tmp_path))
    nested = {'a': [(value, value)], 1: {'b': value}}
    assert same(nested, through_a_file(nested, tmp_path))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_numpy_values_of_every_plain_type_load(dtype, tmp_path, reader):
    array = np.arange(6).astype('i8').astype(dtype).reshape(2, 3)
    for value in (array, array[0, 0], array[:, :0], array.reshape(-1).copy()[
            0:1].reshape(()), np.asfortranarray(array), array[::-1]):
        assert same(value, through_a_file(value, tmp_path))


def test_files_of_both_numpys_are_read(tmp_path, reader):
    """numpy 2 moved its functions; files of the other one have their names."""
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(a=np.arange(3.), b=np.float32(2)), path,
               _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    old, new = b'cnumpy.core.multiarray\n', b'cnumpy._core.multiarray\n'
    mine, other = (new, old) if new in content else (old, new)
    path.write_bytes(content.replace(mine, other))
    loaded = read_checkpoint(path)
    assert loaded['a'].tolist() == [0, 1, 2] and loaded['b'] == 2


def test_legacy_files_are_read(tmp_path, reader):
    meta = dict(sigmas=np.array([]), classes=['a'])
    assert same(meta, through_a_file(
        meta, tmp_path, _use_new_zipfile_serialization=False))


def test_paths_of_another_system_are_read_as_pure_paths(tmp_path, reader):
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(a=pathlib.Path('x/y')), path,
               _use_new_zipfile_serialization=False)
    module = type(pathlib.Path()).__module__.encode()
    path.write_bytes(path.read_bytes().replace(
        b'c' + module + b'\nPosixPath', b'c' + module + b'\nWindowsPath'))
    found = read_checkpoint(path)['a']
    assert found == pathlib.PureWindowsPath('x/y')


# Datasets of the frameworks

FRAMEWORKS = ['mmpose', 'mmseg', 'mmpretrain']


def dataset_classes(package):
    """All registered dataset classes of a framework that have a METAINFO."""
    registry = import_module(f'{package}.registry').DATASETS
    registry.import_from_location()
    return {name: kind for name, kind in registry.module_dict.items()
            if inspect.isclass(kind) and hasattr(kind, '_load_metainfo')}


def meta_of(kind):
    """Return the default ``metainfo`` of a dataset class."""
    file = (kind.METAINFO or {}).get('from_file')
    return pose_metas()[pathlib.Path(file).stem] if file else (
        kind._load_metainfo())


@lru_cache
def pose_metas():
    """The meta of each file that comes with MMPose."""
    import mmpose
    from mmpose.datasets.datasets.utils import parse_pose_metainfo
    folder = pathlib.Path(mmpose.__file__).parent / '.mim/configs/_base_'
    return {path.stem: parse_pose_metainfo(dict(from_file=str(path)))
            for path in sorted(folder.glob('datasets/*.py'))}


@pytest.mark.parametrize('package', FRAMEWORKS)
def test_meta_of_every_dataset_loads(package, tmp_path, reader):
    """As the Runner saves it: in ``meta`` and, by a hook, in the log."""
    pytest.importorskip(package)
    hrformer_mm.compat.install()
    kinds = dataset_classes(package)
    assert len(kinds) > 20
    metas = {name: dict(meta_of(kind), mine=ConfigDict(a=dict(b=[1])))
             for name, kind in kinds.items()}
    if package == 'mmpose':  # some classes choose one of several files
        metas.update(pose_metas())
    loaded = through_a_file(metas, tmp_path)
    assert [n for n in metas if not same(metas[n], loaded[n])] == []


def test_datasets_without_sigmas_are_covered():
    """Hands, faces and fashion have ``sigmas=[]``, an empty array."""
    pytest.importorskip('mmpose')
    empty = [name for name, meta in pose_metas().items()
             if not np.size(meta['sigmas'])]
    assert {'freihand2d', 'wflw', 'deepfashion_full', 'horse10'} <= {*empty}


# What the Runner adds


def schedulers():
    names = sorted(n for n in PARAM_SCHEDULERS.module_dict
                   if not n.startswith('_'))
    assert OneCycleLR.__name__ in names and len(names) > 20
    return names


SCHEDULER_ARGUMENTS = {
    'Step': dict(step_size=2), 'MultiStep': dict(milestones=[1, 3]),
    'Exponential': dict(gamma=.5), 'CosineAnnealing': dict(T_max=4),
    'CosineRestart': dict(periods=[2, 2], restart_weights=[1, .5],
                          eta_min=0), 'Poly': dict(),
    'OneCycle': dict(eta_max=1., total_steps=9),
    'ReduceOnPlateau': dict(monitor='loss'), 'Constant': dict(),
    'Linear': dict()}  # yapf: disable


def make_scheduler(name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=.1,
                                momentum=.9)
    kind = PARAM_SCHEDULERS.get(name)
    words = [w for w in SCHEDULER_ARGUMENTS if name.startswith(w)]
    arguments = dict(SCHEDULER_ARGUMENTS[words[0]]) if words else {}
    if 'param_name' in inspect.signature(kind.__init__).parameters or \
            name.endswith('ParamScheduler'):
        arguments['param_name'] = 'lr'
    return optimizer, PARAM_SCHEDULERS.build(
        dict(arguments, type=name, optimizer=optimizer))


@pytest.mark.parametrize('name', schedulers())
def test_state_of_every_scheduler_loads(name, tmp_path, reader):
    optimizer, scheduler = make_scheduler(name)
    optimizer.step()
    if name.startswith('ReduceOnPlateau'):
        scheduler.step(dict(loss=1.))
    else:
        scheduler.step()
    state = scheduler.state_dict()
    assert same(state, through_a_file(state, tmp_path))


def test_logged_history_loads(tmp_path, reader):
    buffer = HistoryBuffer([1, 2.5], [1, 1])
    buffer.update(np.float64(3))
    loaded = through_a_file(buffer, tmp_path)
    assert loaded.data[0].tolist() == [1, 2.5, 3] and loaded.max() == 3


# Dangerous files


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments, state=None):
        self.call = function, arguments, state

    def __reduce__(self):
        return self.call if self.call[2] else self.call[:2]


def trace_of(folder):
    return folder / 'was_run'


DANGEROUS = dict(
    system=lambda path: Calls(os.system, f'touch {path}'),
    eval=lambda path: Calls(eval, f'open({str(path)!r}, "w")'),
    exec=lambda path: Calls(exec, f'open({str(path)!r}, "w")'),
    touch=lambda path: Calls(pathlib.Path.touch, path),
    open=lambda path: Calls(open, str(path), 'w'),
    tofile=lambda path: Calls(getattr(np.ndarray, 'tofile'), np.ones(1),
                              str(path)),
    getattr=lambda path: Calls(getattr, pathlib.Path(path), 'touch'),
    hub_getattr=lambda path: Calls(getattr, HistoryBuffer, '__init__'),
    imports=lambda path: Calls(__import__, 'os'),
    config=lambda path: Calls(Config.fromfile, str(path)),
    loads=lambda path: Calls(pickle.loads, b'x'),
    type=lambda path: Calls(type, 'A', (), {}),
    object_array=lambda path: np.array([object], dtype=object),
    record=lambda path: np.zeros(2, dtype=[('a', 'O')]),
    long_range=lambda path: range(10**12))  # yapf: disable


@pytest.mark.parametrize('zip_file', [True, False])
@pytest.mark.parametrize('kind', DANGEROUS)
def test_dangerous_files_are_rejected_and_not_run(kind, zip_file, tmp_path,
                                                  reader):
    trace = trace_of(tmp_path)
    with pytest.raises(ValueError, match='refused|not a checkpoint') as error:
        through_a_file(DANGEROUS[kind](trace), tmp_path,
                       _use_new_zipfile_serialization=zip_file)
    assert '\n' not in str(error.value)
    assert not trace.exists()
