# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Checkpoint files: search, safe reading, atomic writing."""
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import foreign
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.runner import load_checkpoint
from torch import nn

from hrformer_mm.checkpoints import (
    find_file,
    load_pretrained,
    read_checkpoint,
    write_checkpoint,
)
from hrformer_mm.checkpoints.download import sha256
from hrformer_mm.checkpoints.schemes import protected_loading
from hrformer_mm.models.backbones import HRFormer

WEIGHTS, MIRROR = 'HRFORMER_MM_WEIGHTS', 'HRFORMER_MM_MIRROR'


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty folder to work in, and no places to look at."""
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    monkeypatch.delenv(WEIGHTS, raising=False)
    monkeypatch.delenv(MIRROR, raising=False)


@pytest.fixture(scope='module')
def tensors():
    torch.manual_seed(0)
    return OrderedDict(
        foreign.random_tensors(foreign.names('mmpose', foreign.TINY)))


@pytest.fixture(scope='module')
def content(tensors, tmp_path_factory):
    """Bytes of a sound .pth and a sound .safetensors file."""
    folder = tmp_path_factory.mktemp('sound')
    files = {}
    for suffix in ('.pth', '.safetensors'):
        path = folder / f'x{suffix}'
        write_checkpoint(dict(state_dict=tensors, meta=dict(epoch=3)), path)
        files[suffix] = path.read_bytes()
    return files


def one_line(error) -> str:
    text = str(error.value)
    assert '\n' not in text
    return text


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_written_checkpoint_is_read_back(tensors, tmp_path, suffix):
    path = tmp_path / f'x{suffix}'
    meta = dict(epoch=3, hrformer_mm=dict(truths=dict(upsample='nearest')))
    write_checkpoint(dict(state_dict=tensors, meta=meta), path)
    found = read_checkpoint(path)
    assert found['meta'] == meta
    assert found['state_dict'].keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(found['state_dict'][name], value)
        assert found['state_dict'][name].dtype == value.dtype


def test_safetensors_are_detected_under_any_file_name(content, tmp_path):
    path = tmp_path / 'x.bin'
    path.write_bytes(content['.safetensors'])
    assert len(read_checkpoint(path)['state_dict']) > 100


@given(
    suffix=st.sampled_from(['.pth', '.safetensors']),
    part=st.floats(0, 1, exclude_max=True))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_fails_with_one_line(content, tmp_path, suffix, part):
    path = tmp_path / f'x{suffix}'
    whole = content[suffix]
    path.write_bytes(whole[:int(len(whole) * part)])
    with pytest.raises(ValueError, match='cut off') as error:
        read_checkpoint(path)
    assert str(path) in one_line(error)


@given(data=st.binary(max_size=200))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_of_another_type_fails_with_one_line(tmp_path, data):
    path = tmp_path / 'x.pth'
    path.write_bytes(data)
    with pytest.raises(ValueError) as error:
        read_checkpoint(path)
    one_line(error)


class Evil:

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path), )


@pytest.mark.parametrize('form', ['zip', 'legacy', 'plain pickle'])
def test_a_pickle_with_code_is_rejected_and_does_not_run(tmp_path, form):
    path, trap = tmp_path / 'x.pth', tmp_path / 'trap'
    evil = dict(state_dict={'a': torch.zeros(1)}, meta=Evil(trap))
    if form == 'plain pickle':
        path.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=form == 'zip')
    with pytest.raises(ValueError) as error:
        read_checkpoint(path)
    assert one_line(error)
    assert not trap.exists()
    if form != 'plain pickle':
        assert 'mkdir' in one_line(error) and 'refused' in one_line(error)


def test_load_from_of_our_tools_runs_no_code(tmp_path):
    path, trap = tmp_path / 'x.pth', tmp_path / 'trap'
    torch.save(dict(state_dict={}, meta=Evil(trap)), path)
    with pytest.raises(ValueError, match='could run code'):
        with protected_loading():
            load_checkpoint(nn.Linear(1, 1), str(path))
    assert not trap.exists()


def test_any_model_finds_weights_by_their_name(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS, str(tmp_path))
    model = nn.Linear(2, 2)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'x.pth')
    for name in ('hrformer_mm://x.pth', f'hrformer_mm://{tmp_path}/x.pth'):
        other = nn.Linear(2, 2)
        load_checkpoint(other, name)
        assert torch.equal(other.weight, model.weight)
    with pytest.raises(FileNotFoundError, match='weights y.pth'):
        load_checkpoint(model, 'hrformer_mm://y.pth')


def test_an_archive_that_unpacks_to_more_than_its_size_is_rejected(
        content, tmp_path):
    sound, bomb = tmp_path / 'x.pth', tmp_path / 'bomb.pth'
    sound.write_bytes(content['.pth'])
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(
            bomb, 'w', zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, bytes(len(source.read(info))))
    with pytest.raises(ValueError, match='claim to hold') as error:
        read_checkpoint(bomb)
    one_line(error)


def test_a_tensor_larger_than_its_storage_is_rejected(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'a': torch.zeros(1).expand(10**6, 10**6)}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match='not all there') as error:
        read_checkpoint(path)
    one_line(error)


def test_a_file_without_tensors_or_with_one_is_not_a_checkpoint(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match='one Tensor'):
        read_checkpoint(path)


def test_the_yacs_config_of_official_files_is_ignored(tensors, tmp_path,
                                                      monkeypatch):
    # As yacs pickles it: a subclass of dict with attributes.
    with monkeypatch.context() as patch:
        module = types.ModuleType('yacs.config')
        module.CfgNode = type('CfgNode', (dict, ),
                              dict(__module__='yacs.config'))
        patch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
        patch.setitem(sys.modules, 'yacs.config', module)
        config = module.CfgNode(MODEL=module.CfgNode(NAME='hrt'))
        config.__dict__['__immutable__'] = True
        path = tmp_path / 'hrt_small.pth'
        torch.save(dict(model=tensors, config=config, epoch=299), path)
    assert read_checkpoint(path)['config']['MODEL']['NAME'] == 'hrt'
    load_checkpoint(nn.Linear(1, 1), str(path))  # mmengine reads it, too


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_an_existing_file_is_kept_without_force(tensors, tmp_path, suffix):
    path = tmp_path / f'x{suffix}'
    path.write_text('mine')
    with pytest.raises(FileExistsError, match='--force'):
        write_checkpoint(dict(state_dict=tensors), path)
    assert path.read_text() == 'mine'
    write_checkpoint(dict(state_dict=tensors), path, force=True)
    assert len(read_checkpoint(path)['state_dict']) == len(tensors)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_failed_write_keeps_the_old_file(tmp_path, suffix):
    path = tmp_path / f'x{suffix}'
    path.write_text('mine')
    broken = dict(state_dict={'a': torch.zeros(2), 'b': lambda: 0})
    with pytest.raises(Exception):
        write_checkpoint(broken, path, force=True)
    assert path.read_text() == 'mine'
    assert [p.name for p in tmp_path.glob('*x*')] == [path.name]


def test_other_file_extensions_are_rejected(tmp_path):
    with pytest.raises(ValueError, match='.safetensors'):
        write_checkpoint(dict(state_dict={}), tmp_path / 'x.onnx')


def test_weights_are_searched_here_and_then_in_the_folders(
        tmp_path, monkeypatch):
    folder = tmp_path / 'folder'
    places = ['x.pth', 'weights/x.pth', str(folder / 'x.pth')]
    os.mkdir('weights')
    folder.mkdir()
    monkeypatch.setenv(WEIGHTS, str(folder))
    for place in reversed(places):
        with open(place, 'w'):
            pass
        assert str(find_file('x.pth')) == place


def test_missing_weights_are_reported_with_the_searched_places_and_the_fix(
        tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS, str(tmp_path / 'folder'))
    with pytest.raises(FileNotFoundError) as error:
        find_file('hrt_base.pth')
    text = one_line(error)
    for word in ('hrt_base.pth', 'weights/hrt_base.pth',
                 str(tmp_path / 'folder' / 'hrt_base.pth'), MIRROR,
                 '--cfg-options model.backbone.init_cfg=None'):
        assert word in text


def test_the_mirror_is_used_last_and_fills_the_folder(content, tmp_path,
                                                      monkeypatch):
    mirror, folder = tmp_path / 'mirror', tmp_path / 'folder'
    mirror.mkdir()
    (mirror / 'x.pth').write_bytes(content['.pth'])
    monkeypatch.setenv(MIRROR, mirror.as_uri() + '/')
    monkeypatch.setenv(WEIGHTS, str(folder))
    path = find_file('x.pth')
    assert path == folder / 'x.pth'
    assert path.read_bytes() == content['.pth']
    (mirror / 'x.pth').unlink()
    assert find_file('x.pth') == path


def test_a_url_is_searched_in_the_folders_first(content):
    os.mkdir('weights')
    with open('weights/x.pth', 'wb') as file:
        file.write(content['.pth'])
    dead = 'https://nowhere.invalid/some/x.pth'
    assert str(find_file(dead)) == 'weights/x.pth'
    os.remove('weights/x.pth')
    with pytest.raises(FileNotFoundError, match='nowhere.invalid'):
        find_file(dead)


def test_a_download_must_match_the_hash_in_its_name(content, tmp_path):
    good = tmp_path / 'good.pth'
    good.write_bytes(content['.pth'])
    named = tmp_path / f'x-{sha256(good)[:8]}_20220226.pth'
    named.write_bytes(content['.pth'])
    assert find_file(named.as_uri()).read_bytes() == content['.pth']
    bad = tmp_path / 'x-00000000_20220226.pth'
    bad.write_bytes(content['.pth'])
    with pytest.raises(ValueError, match='damaged'):
        find_file(bad.as_uri())
    assert not os.path.exists('weights/x-00000000_20220226.pth')


def test_nothing_is_loaded_from_a_damaged_file(content, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(content['.pth'][:-100])
    backbone = HRFormer(foreign.TINY, out_indices=(0, ))
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(ValueError, match='cut off'):
        load_pretrained(backbone, path)
    after = backbone.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_load_from_accepts_safetensors(content, tmp_path):
    path = tmp_path / 'x.safetensors'
    path.write_bytes(content['.safetensors'])
    model = nn.Module()
    model.backbone = HRFormer(
        foreign.TINY, out_indices=(0, ), upsample='bilinear')
    model.head = nn.ModuleDict(dict(final_layer=nn.Conv2d(4, 17, 1)))
    found = load_checkpoint(model, str(path))
    assert found['meta']['epoch'] == 3
    assert torch.equal(model.backbone.conv1.weight,
                       found['state_dict']['backbone.conv1.weight'])
