# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Importing the package leaves other code unchanged."""
import gc
import os
import subprocess
import sys
from copy import deepcopy

import foreign
import pytest
import torch
from helpers import CONFIGS, ROOT
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn
from torch.nn.modules import module as torch_module

from hrformer_mm.checkpoints import schemes
from hrformer_mm.models.backbones import HRFormer

HOOKS = [name for name in dir(torch_module)
         if name.startswith('_global') and name.endswith('hooks')]


def registered():
    """Hooks that act on every module of the process, by kind."""
    return {name: list(getattr(torch_module, name)) for name in HOOKS}


def test_importing_the_package_loads_and_changes_nothing_else():
    """In a new process; neither timm, torchvision, gradio nor a framework."""
    code = f'''
import sys, torch, mmengine.runner
loaded = set(sys.modules)
import hrformer_mm  # compat lists what this one changes
added = {{name.partition('.')[0] for name in set(sys.modules) - loaded}}
assert added <= {{'hrformer_mm', 'mmcv', 'cv2'}}, added
from torch.nn.modules import module
from mmengine.fileio import backends
from mmengine.runner import checkpoint
def state():
    return ({{n: list(getattr(module, n)) for n in {HOOKS}}},
            list(checkpoint.CheckpointLoader._schemes.items()),
            dict(vars(checkpoint)), dict(vars(torch.serialization)),
            sorted(backends.registry_utils.backends),
            nn_methods())
def nn_methods():
    return dict(vars(torch.nn.Module))
torch.load.__name__
before = state()
import hrformer_mm.checkpoints
assert state() == before
print('same')
'''
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code],
                          env=dict(os.environ, PYTHONPATH=str(ROOT)),
                          capture_output=True, text=True)  # yapf: disable
    assert done.stdout.strip() == 'same', done.stderr


def other_model():
    torch.manual_seed(0)
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    return model


@pytest.mark.parametrize('is_zip', [True, False])
@pytest.mark.parametrize('suffix', ['.pth', '.pth.tar', '.pt'])
def test_checkpoints_of_other_models_load_as_without_us(suffix, is_zip,
                                                        tmp_path):
    """By mmengine's own loader, whatever was imported and built of ours."""
    HRFormer(foreign.TINY)
    path = str(tmp_path / f'other{suffix}')
    model = other_model()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(a=1)), path,
               _use_new_zipfile_serialization=is_zip)
    loader = CheckpointLoader._get_checkpoint_loader(path)
    assert loader.__module__ == 'mmengine.runner.checkpoint'
    assert loader.__name__ == 'load_from_local'
    other = other_model()
    other.backbone[0].weight.data.zero_()
    loaded = load_checkpoint(other, path)
    assert loaded['meta'] == dict(a=1)
    assert torch.equal(other.backbone[0].weight, model.backbone[0].weight)
    with pytest.raises(FileNotFoundError, match='can not be found'):
        load_checkpoint(other, 'hrt_small.pth')  # not looked for elsewhere


def test_our_loader_is_used_only_within_our_commands(tmp_path):
    path, before = str(tmp_path / 'x.pth'), dict(CheckpointLoader._schemes)
    find = CheckpointLoader._get_checkpoint_loader
    with pytest.raises(KeyError), schemes.protected_loading():
        assert find(path) is schemes.load_from_weights
        # Downloads of trainings are checked, continued and read safely, too.
        assert find('https://a.b/x.pth') is schemes.load_from_weights
        raise KeyError
    assert find(path).__name__ == 'load_from_local'
    assert find('https://a.b/x.pth').__name__ == 'load_from_http'
    assert CheckpointLoader._schemes == before


class Owner(nn.Module):

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


# On a model with a backbone: one converts checkpoints, one guards predictions.
OWN_HOOKS = 2


def test_the_global_hook_is_removed_once_a_backbone_has_its_model():
    before = registered()
    owner = Owner(backbone=HRFormer(foreign.TINY), head=nn.Linear(2, 2))
    assert registered() == before
    assert len(owner._load_state_dict_pre_hooks) == OWN_HOOKS
    assert not owner.head._load_state_dict_pre_hooks
    other = Owner(encoder=HRFormer(foreign.TINY))
    assert registered() == before
    assert not other._load_state_dict_pre_hooks
    nested = nn.Sequential(HRFormer(foreign.TINY))
    assert registered() == before and len(nested) == 1


def test_the_global_hook_is_removed_with_a_bare_backbone():
    before = registered()
    backbone = HRFormer(foreign.TINY)
    backbone.load_state_dict(backbone.state_dict())
    del backbone
    gc.collect()
    assert registered() == before


def test_a_second_backbone_of_a_model_gets_a_hook():
    owner = Owner(backbone=nn.Linear(1, 1))
    assert not owner._load_state_dict_pre_hooks
    owner.backbone = HRFormer(foreign.TINY)
    assert len(owner._load_state_dict_pre_hooks) == OWN_HOOKS
    assert len(deepcopy(owner)._load_state_dict_pre_hooks) == OWN_HOOKS
    owner.backbone = HRFormer(foreign.TINY)
    assert len(owner._load_state_dict_pre_hooks) == OWN_HOOKS


def pretrained(value):
    """Type and checkpoint of each module that starts from a file."""
    if isinstance(value, dict):
        init = value.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            yield value.get('type'), init['checkpoint']
        value = list(value.values())
    for inner in value if isinstance(value, (list, tuple)) else ():
        yield from pretrained(inner)


def test_configs_find_weights_of_other_packages_by_their_names():
    """Two of our classes do it themselves; mmengine needs the prefix."""
    paths = {(p.parent.name, *p.stem.split('_')[:2]): p
             for p in CONFIGS.glob('[!_]*/*.py')
             if not p.stem.startswith(('hrformer', 'hrnet', 'custom'))}
    found = {pair for path in paths.values()
             for pair in pretrained(Config.fromfile(path).model)}
    others = [name for kind, name in found if kind not in (
        'hrformer_mm.HRFormer', 'hrformer_mm.SwinTransformer')]
    assert len(others) >= 5
    assert [n for n in others if not n.startswith(schemes.PREFIX)] == []
