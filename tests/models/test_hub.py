# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer through torch.hub and the Hugging Face Hub, on local folders."""
import json
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import foreign
import pytest
import torch
from helpers import ROOT

from hrformer_mm.checkpoints import files
from hrformer_mm.core import HRFormer
from hrformer_mm.core.arch import get_arch

SMALL = dict(arch=dict(channels=foreign.TINY.channels,
                       heads=foreign.TINY.heads,
                       modules=foreign.TINY.modules, blocks=1),
             window_size=[5, 5, 3, 7], out_indices=(0, 2), in_channels=4,
             upsample='bilinear', rel_pos_bias=False)  # yapf: disable


def load(name, **kwargs):
    return torch.hub.load(
        str(ROOT), name, source='local', trust_repo=True, **kwargs)


def outputs(model, channels=3):
    torch.manual_seed(1)
    with torch.inference_mode():
        return model.eval()(torch.rand(1, channels, 40, 56))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory, and a folder of downloads, without weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.WEIGHTS, str(tmp_path / 'own'))
    (tmp_path / 'own').mkdir()
    return tmp_path / 'own'


def test_torch_hub_has_entries_for_the_three_sizes_alone():
    spec = spec_from_file_location('hubconf', ROOT / 'hubconf.py')
    hubconf = module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    entries = {name for name, entry in vars(hubconf).items()
               if callable(entry) and not name.startswith('_')}
    assert entries == {'hrformer_tiny', 'hrformer_small', 'hrformer_base'}
    assert all(find_spec(name) for name in hubconf.dependencies)


def test_torch_hub_builds_backbones_with_arguments(monkeypatch, folder):
    model = load('hrformer_tiny', window_size=5, out_indices=(1, ))
    assert isinstance(model, HRFormer) and not model.training
    assert model.arch == get_arch('tiny')
    feature, = outputs(model)
    assert feature.shape == (1, 36, 5, 7)
    with pytest.raises(TypeError, match='windows'):
        load('hrformer_tiny', windows=5)


def test_torch_hub_loads_checkpoints(folder):
    wanted = HRFormer('tiny').state_dict()
    torch.save(wanted, folder / 'hrt_tiny.pth')
    for pretrained in (True, str(folder / 'hrt_tiny.pth')):
        found = load('hrformer_tiny', pretrained=pretrained).state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_torch_hub_says_where_missing_weights_come_from(folder):
    with pytest.raises(FileNotFoundError, match='hrt_tiny.pth.*1drv.ms'):
        load('hrformer_tiny', pretrained=True)


def test_a_folder_restores_arguments_and_outputs(tmp_path):
    hub = pytest.importorskip('hrformer_mm.models.hub',
                              exc_type=ImportError)
    torch.manual_seed(0)
    model = hub.HRFormer(**SMALL)
    model.save_pretrained(tmp_path / 'a')
    names = {path.name for path in (tmp_path / 'a').iterdir()}
    assert names == {'config.json', 'model.safetensors', 'README.md'}
    assert json.loads((tmp_path / 'a/config.json').read_text())[
        'window_size'] == [5, 5, 3, 7]
    torch.manual_seed(5)
    again = hub.HRFormer.from_pretrained(tmp_path / 'a')
    for name in ('arch', 'window_size', 'upsample', 'rel_pos_bias'):
        assert getattr(again, name) == getattr(model, name)
    assert len(outputs(again, 4)) == 2
    for a, b in zip(outputs(model, 4), outputs(again, 4)):
        assert torch.equal(a, b)


def test_an_arch_object_and_later_saves_are_restored(tmp_path):
    hub = pytest.importorskip('hrformer_mm.models.hub',
                              exc_type=ImportError)
    model = hub.HRFormer(get_arch(SMALL['arch']), with_cp=True)
    model.save_pretrained(tmp_path / 'a')
    again = hub.HRFormer.from_pretrained(tmp_path / 'a', with_cp=False)
    assert again.arch == model.arch and not again.with_cp
    again.save_pretrained(tmp_path / 'b')
    last = hub.HRFormer.from_pretrained(tmp_path / 'b')
    for a, b in zip(outputs(model), outputs(last)):
        assert torch.equal(a, b)


def test_without_huggingface_hub_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    monkeypatch.delitem(sys.modules, 'hrformer_mm.models.hub',
                        raising=False)
    with pytest.raises(ImportError, match=r"pip install 'hrformer-mm\[hub\]'"):
        import hrformer_mm.models.hub  # noqa: F401
