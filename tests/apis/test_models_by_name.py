# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Models and their released weights are found by name."""
import os
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import hrformer_mm
from hrformer_mm.__main__ import main
from hrformer_mm.apis import find_weights, get_model, list_models
from hrformer_mm.checkpoints import download, files, find_file, weights_index
from hrformer_mm.engine.train import read_config
from hrformer_mm.utils.cli import OFFLINE

pytest.importorskip('mmpose')
SMALL = 'hrformer_small-09516375_20220226.pth'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of downloads, and a working directory without weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.WEIGHTS, str(tmp_path / 'own'))
    monkeypatch.delenv(files.MIRROR, raising=False)
    (tmp_path / 'own').mkdir()
    return tmp_path / 'own'


@pytest.fixture
def released(monkeypatch):
    """A release of HRFormer-T for COCO, which nobody has published."""
    entry = next(w for w in weights_index.list_weights()
                 if w.name.startswith('hrformer_small_coco_256x192'))
    entry = replace(entry, file='tiny.pth', url='https://x.invalid/tiny.pth',
                    arch='tiny', config='configs/pose/hrformer_t_coco_256x192',
                    options='model.test_cfg.flip_test=False')
    monkeypatch.setattr(weights_index, 'list_weights', lambda: [entry])
    return entry


def test_models_are_listed_by_pattern():
    names = list_models('*coco*')
    assert 'hrformer_b_coco_384x288' in names
    assert 'hrformer_s_cityscapes_512x1024' not in names
    assert list_models('hrformer_b_coco_384x288') == [
        name for name in names if name.startswith('hrformer_b_coco_384x288')]
    assert not [name for name in list_models() if name.startswith('_')]


def test_models_with_weights_to_download_are_the_four_of_mmpose():
    assert list_models('*coco*', pretrained=True) == [
        f'hrformer_{size}_coco_{hw}' for size in 'bs'
        for hw in ('256x192', '384x288')]


def test_the_package_has_the_functions_without_importing_them_at_once():
    assert hrformer_mm.list_models is list_models
    assert hrformer_mm.get_model is get_model
    with pytest.raises(AttributeError, match='no attribute'):
        hrformer_mm.nothing
    assert 'hrformer_mm.apis' in sys.modules


def test_a_config_is_read_by_its_name():
    cfg = read_config('hrformer_t_coco_256x192')
    assert cfg.model.backbone.arch == 'tiny'
    with pytest.raises(FileNotFoundError, match='Did you mean'):
        read_config('hrformer_t_coco_256x193')


def test_a_model_by_name_takes_weights_and_their_options(released, folder):
    model = get_model('hrformer_t_coco_256x192')
    torch.save(dict(state_dict=model.state_dict()), folder / 'tiny.pth')
    again = get_model('hrformer_t_coco_256x192', pretrained=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not again.training and not again.test_cfg.flip_test


def test_weights_that_are_missing_say_where_to_get_them(released, folder):
    cfg = read_config('hrformer_t_coco_256x192')
    with pytest.raises(FileNotFoundError, match='x.invalid/tiny.pth, saved as '
                       'tiny.pth in weights or .*own$'):
        find_weights(cfg)
    with pytest.raises(ValueError, match='no released weights are known for'):
        find_weights(read_config('hrformer_t_coco_384x288'))


def test_a_local_file_comes_before_a_download(released, folder, monkeypatch):
    by_hand = replace(released, file='official.pth', options='',
                      url='https://x.invalid/page')
    monkeypatch.setattr(weights_index, 'list_weights',
                        lambda: [released, by_hand])
    monkeypatch.setattr(files, 'download', None)  # would raise an error
    (folder / 'official.pth').write_bytes(b'x')
    cfg = read_config('hrformer_t_coco_256x192')
    assert find_weights(cfg) == folder / 'official.pth'


def test_a_backbone_alone_is_not_taken_for_the_weights_of_a_model(folder):
    (folder / SMALL).write_bytes(b'x')
    with pytest.raises(FileNotFoundError, match='1drv.ms.*, saved as '
                       'hrt_small.pth in weights or '):
        find_weights(read_config('hrformer_s_imagenet_224'))


@pytest.mark.parametrize('argv', [['download', 'hrformer_b_coco_384x288'],
                                  ['predict', 'hrformer_b_coco_384x288',
                                   'photo.jpg']])
def test_offline_no_command_downloads(argv, folder, monkeypatch, capsys):
    cv2.imwrite('photo.jpg', np.full((64, 48, 3), 128, np.uint8))
    monkeypatch.setenv(OFFLINE, '0')
    monkeypatch.setattr(download, 'fetch', None)  # would raise an error
    with pytest.raises(SystemExit):
        main([*argv, '--offline'])
    line, = capsys.readouterr().err.splitlines()
    assert 'downloaded while downloads are forbidden (--offline)' in line
    assert os.environ[OFFLINE] == '0'


@pytest.mark.parametrize('name, copy', [
    ('hrt_small.pth', SMALL),
    ('hrt_base.pth', 'hrformer_base-32815020_20220226.pth')])
def test_mmposes_copy_replaces_an_absent_official_file(name, copy, folder):
    with pytest.raises(FileNotFoundError, match=name):
        find_file(name)
    (folder / copy).write_bytes(b'x')
    assert find_file(name) == folder / copy
    (folder / name).write_bytes(b'y')
    assert find_file(name) == folder / name


def test_the_list_command_prints_names(capsys):
    assert main(['list', 'hrformer_b_coco', '--pretrained']) == 0
    assert capsys.readouterr().out.split() == [
        'hrformer_b_coco_256x192', 'hrformer_b_coco_384x288']
    with pytest.raises(SystemExit) as exit:
        main(['list', 'nothing'])
    assert exit.value.code == 2 and 'hrformer-mm list' in (
        capsys.readouterr().err)


def test_the_download_command_prints_the_path(released, folder, capsys):
    (folder / 'tiny.pth').write_bytes(b'x')
    for name in ('hrformer_t_coco_256x192', 'tiny.pth'):
        assert main(['download', name]) == 0
        assert capsys.readouterr().out.strip() == str(folder / 'tiny.pth')


def test_predict_takes_a_name_in_place_of_config_and_weights(
        released, folder, capsys):
    model = get_model('hrformer_t_coco_256x192')
    torch.save(dict(state_dict=model.state_dict()), folder / 'tiny.pth')
    cv2.imwrite('photo.jpg', np.full((64, 48, 3), 128, np.uint8))
    assert main(['predict', 'hrformer_t_coco_256x192', 'photo.jpg', '--boxes',
                 'whole', '--device', 'cpu']) == 0
    assert '1 images' in capsys.readouterr().out
