# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The frameworks' functions take the names of this package's models."""
import shutil
from pathlib import Path

import pytest
from helpers import ROOT

from hrformer_mm import zoo
from hrformer_mm.zoo.model_names import models_of, path_of, scope_of

for package in ('mmpose', 'mmseg', 'mmpretrain'):
    pytest.importorskip(package)

from mmengine.infer import BaseInferencer  # noqa: E402
from mmpretrain.apis.model import ModelHub, get_model  # noqa: E402

CLS = 'hrformer_t_imagenet_224'


@pytest.fixture
def hub(monkeypatch):
    """The ModelHub, which forgets afterwards what was registered."""
    ModelHub._register_mmpretrain_models()
    monkeypatch.setattr(ModelHub, '_models_dict',
                        dict(ModelHub._models_dict))
    return ModelHub


@pytest.fixture(params=['checkout', 'installed'])
def index(request, tmp_path):
    """model-index.yml of a checkout and of an installed package."""
    if request.param == 'checkout':
        return ROOT / 'model-index.yml'
    mim = tmp_path / 'site-packages/hrformer_mm/.mim'
    shutil.copytree(ROOT / 'configs', mim / 'configs')
    return Path(shutil.copy(ROOT / 'model-index.yml', mim))


@pytest.mark.parametrize('with_prefix', [True, False])
def test_a_registered_model_index_serves_get_model(hub, index, with_prefix):
    before = set(hub._models_dict)
    hub.register_model_index(
        index, config_prefix=index.parent if with_prefix else None)
    found = {name: hub._models_dict[name].config
             for name in set(hub._models_dict) - before}
    assert set(found) == {entry.name for entry in zoo.list_entries()
                          if entry.config}
    assert all(Path(path).is_file() and str(index.parent) in path
               for path in found.values())
    model = get_model(CLS, backbone=dict(out_indices=(0, 1, 2, 3)))
    assert sum(p.numel() for p in model.parameters()) == zoo.load_entry(
        CLS).parameters


def test_get_model_finds_a_model_that_nobody_registered(hub):
    assert not hub.has(CLS)
    metainfo = hub.get(CLS.upper())
    assert metainfo.config.filename == path_of(CLS, 'mmpretrain')
    assert metainfo.weights is None
    assert hub.get('resnet18_8xb32_in1k').config.model.backbone.depth == 18
    for name in ('hrformer_x_imagenet_224', 'hrformer_t_coco_256x192'):
        with pytest.raises(ValueError, match=name):
            hub.get(name)


@pytest.mark.parametrize('package, name', [
    ('mmpose', 'hrformer_t_synthetic_112x84'),
    ('mmseg', 'hrformer_t_synthetic_112x224'),
])
def test_init_model_takes_a_name_and_keeps_taking_paths(package, name):
    init_model = getattr(__import__(f'{package}.apis').apis, 'init_model')
    by_name = init_model(name, device='cpu')
    path = path_of(name, package)
    assert by_name.cfg.filename == path
    assert type(by_name) is type(init_model(path, device='cpu'))
    with pytest.raises(FileNotFoundError, match='hrformer_x'):
        init_model('hrformer_x', device='cpu')


def test_files_in_the_current_folder_take_precedence_over_names(
        tmp_path, monkeypatch):
    from mmpose.apis import init_model
    monkeypatch.chdir(tmp_path)
    Path('hrformer_t_coco_256x192').mkdir()
    with pytest.raises(OSError):  # it is no config
        init_model('hrformer_t_coco_256x192', device='cpu')


@pytest.mark.parametrize('scope', ['mmpose', 'mmseg', 'mmpretrain'])
def test_inferencers_list_the_models_of_their_task(scope, capsys):
    names = BaseInferencer.list_models(scope, r'(hrformer|hrnet|swin)_')
    capsys.readouterr()  # it prints them all
    assert set(names) >= {n for n in models_of(scope) if n[:4] == 'hrfo'}
    folder = BaseInferencer._get_repo_or_mim_dir(scope)
    assert scope_of(folder) == scope and scope_of('/') is None


def test_the_inferencer_of_mmpose_predicts_by_name(tmp_path):
    import numpy as np
    from mmpose.apis import MMPoseInferencer
    inferencer = MMPoseInferencer(
        'hrformer_t_synthetic_112x84', det_model='whole_image', device='cpu')
    image = np.zeros((40, 60, 3), 'u1')
    result = next(inferencer(image, show_progress=False))
    assert len(result['predictions'][0][0]['keypoints']) == 17
