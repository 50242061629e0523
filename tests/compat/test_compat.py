# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""compat fixes upstream bugs and changes nothing else.

Most of it acts on import, so it is tried in processes of its own.
"""
import os
import pickle
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mmengine.dist
import mmengine.model
import numpy as np
import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import load_checkpoint
from torch import nn
from torch.torch_version import TorchVersion

import hrformer_mm
from hrformer_mm import compat, registry


def run_python(code: str, *path: Path) -> str:
    """Run code in a new process that finds modules in ``path`` first."""
    folders = [str(folder) for folder in (*path, ROOT)]
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code],
                          env=dict(
                              os.environ, PYTHONPATH=os.pathsep.join(folders)),
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_mmcv(folder: Path, compiled: bool) -> Path:
    """A package that looks like mmcv with or without compiled ops."""
    (folder / 'mmcv').mkdir()
    (folder / 'mmcv/__init__.py').write_text('')
    if compiled:
        (folder / 'mmcv/_ext.py').write_text("def nms(): return 'compiled'")
    return folder


def test_a_compiled_mmcv_is_not_changed(tmp_path):
    out = run_python(
        'import sys, hrformer_mm; print("mmcv._ext" in sys.modules)\n'
        'from mmcv import _ext; print(_ext.nms())',
        write_mmcv(tmp_path, compiled=True))
    assert out.split() == ['False', 'compiled']


def test_an_extension_that_is_loaded_is_not_replaced(tmp_path):
    out = run_python(
        'import sys; sys.modules["mmcv._ext"] = ext = object()\n'
        'import hrformer_mm; print(sys.modules["mmcv._ext"] is ext)',
        write_mmcv(tmp_path, compiled=False))
    assert out.split() == ['True']


def test_without_compiled_ops_a_stub_raises_with_the_fix(tmp_path):
    out = run_python(
        'import hrformer_mm\n'
        'from mmcv import _ext\n'
        'try: _ext.nms_rotated(1, 2)\n'
        'except NotImplementedError as error: print(error)',
        write_mmcv(tmp_path, compiled=False))
    assert 'mmcv.ops.nms_rotated needs mmcv with compiled ops' in out
    assert 'mim install' in out


def test_the_stub_has_no_special_attributes():
    with pytest.raises(AttributeError):
        compat.MissingOps('mmcv._ext').__path__


def test_all_four_frameworks_import_with_the_stub():
    try:
        version('mmcv-lite')
    except PackageNotFoundError:
        pytest.skip('mmcv-lite is not installed')
    names = ['mmpose', 'mmseg', 'mmpretrain', 'mmdet']
    for name in names:
        pytest.importorskip(name)
    out = run_python(f'''
import hrformer_mm, torch
from importlib import import_module
from mmengine.utils.dl_utils.misc import mmcv_full_available
for name in {names}:
    import_module(name + '.models')
    import_module(name + '.apis')
from mmcv import ops
try: ops.roi_pool(torch.rand(1, 1, 2, 2), torch.zeros(1, 5), 2)
except NotImplementedError as error: print(error)
mmcv_full_available()
''')
    assert 'needs mmcv with compiled ops' in out


def test_mmengine_finds_the_extension_on_python_3_14(tmp_path):
    (tmp_path / 'torch.py').write_text('raise ImportError')  # for speed
    out = run_python(
        'import pkgutil\n'
        'pkgutil.__dict__.pop("find_loader", None)\n'
        'import hrformer_mm\n'
        'print([pkgutil.find_loader(name) is not None\n'
        '       for name in ("mmcv._ext", "os", "no_such_module")])',
        write_mmcv(tmp_path, compiled=False))
    assert out.strip() == '[True, True, False]'


def test_importing_the_package_imports_no_framework():
    out = run_python(
        'import sys, hrformer_mm\n'
        'print([m for m in ("mmcv", "mmpose", "mmseg", "mmpretrain", "mmdet",'
        ' "timm") if m in sys.modules])')
    assert out.strip() == '[]'


def test_importing_the_package_works_without_torch(tmp_path):
    (tmp_path / 'torch.py').write_text('raise ImportError("no torch")')
    out = run_python('import hrformer_mm; print(hrformer_mm.__version__)',
                     tmp_path)
    assert out.strip() == hrformer_mm.__version__


@pytest.fixture
def runner_checkpoint(tmp_path) -> Path:
    """Save meta, weights, optimizer and logged scalars as the Runner does."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    hub = MessageHub.get_instance('test_compat')
    scalars = (1., np.float32(2), np.float64(3), np.int64(4), np.float16(5))
    for value in scalars:
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', np.int64(5))
    path = tmp_path / 'epoch_1.pth'
    torch.save(
        dict(
            meta=dict(epoch=1, iter=5, cfg='text'),
            state_dict=model.state_dict(),
            optimizer=optimizer.state_dict(),
            message_hub=hub.state_dict()), path)
    return path


@pytest.mark.skipif(
    TorchVersion(torch.__version__) < '2.6',
    reason='PyTorch before 2.6 has no list of types that weights_only reads')
def test_a_runner_checkpoint_loads_with_weights_only(runner_checkpoint):
    loaded = torch.load(runner_checkpoint, weights_only=True)
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert buffer.current() == 5
    assert buffer.data[0].tolist() == [1, 2, 3, 4, 5]
    assert loaded['message_hub']['runtime_info']['iter'] == 5
    assert loaded['optimizer']['state'][0]['step'] == 1


def test_mmengine_loads_a_runner_checkpoint(runner_checkpoint):
    model = nn.Linear(3, 2)
    loaded = load_checkpoint(model, str(runner_checkpoint))
    assert torch.equal(model.weight, loaded['state_dict']['weight'])


class Malice:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path, )


@pytest.mark.skipif(
    TorchVersion(torch.__version__) < (2, 6),
    reason='older versions of torch load without protection by default')
def test_a_malicious_checkpoint_is_rejected_and_not_run(tmp_path):
    trace = tmp_path / 'was_run'
    path = tmp_path / 'malicious.pth'
    torch.save(dict(state_dict=Malice(trace)), path)
    with pytest.raises(pickle.UnpicklingError, match='weights_only'):
        torch.load(str(path))
    with pytest.raises(pickle.UnpicklingError, match='weights_only'):
        load_checkpoint(nn.Linear(1, 1), str(path))
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # it would have


def test_a_config_can_inherit_from_the_package(tmp_path):
    if not (ROOT / 'hrformer_mm/.mim').exists():
        pytest.skip('hrformer_mm is not installed')
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = 'hrformer_mm::pose/hrformer_s_coco_256x192.py'\n"
                    "model = dict(backbone=dict(drop_path_rate=0.5))\n")
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.drop_path_rate == .5
    assert cfg.model.backbone.type == 'hrformer_mm.HRFormer'


def test_installing_again_changes_nothing():
    # PyTorch before 2.6 has no list of safe types.
    safe = getattr(torch.serialization, 'get_safe_globals', list)

    def patched():
        return (safe(), sys.modules.get('mmcv._ext'), sys.meta_path[:],
                mmengine.dist.utils._init_dist_pytorch,
                mmengine.model.MMDistributedDataParallel.__init__)

    before = patched()
    compat.install()
    assert before == patched()


@pytest.mark.parametrize('package, line', [
    ('mmpose.codecs', r"'hrformer-mm\[pose\]'.*--no-deps mmpose"),
    ('mmseg.models', r"'hrformer-mm\[seg\]'"),
    ('mmpretrain', r"'hrformer-mm\[cls\]'"),
    ('mmdet.models', r"'hrformer-mm\[det\]'"),
    ('mmcv.cnn', "'mmcv-lite>=")])
def test_a_missing_framework_is_reported_with_its_install_command(
        package, line, monkeypatch):

    def fail(name):
        raise ModuleNotFoundError('missing', name=package)

    monkeypatch.setattr(registry, 'import_module', fail)
    monkeypatch.setitem(registry.MODELS.entries, 'Any', 'models.any')
    with pytest.raises(ImportError, match='hrformer_mm.Any needs '
                       f'{package.partition(".")[0]}, .*{line}'):
        registry.MODELS.get('Any')
