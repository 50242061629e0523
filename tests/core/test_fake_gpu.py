# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Forward passes and losses never synchronize with the GPU."""
import fake_gpu
import pytest
import torch
from helpers import CONFIGS
from mmengine.config import Config
from torch import nn
from torch._subclasses import fake_tensor

from hrformer_mm.core import ARCHS

# The cheapest of each kind: HRFormer for each task, shifted windows without
# depth-wise convolutions, HRNet, and transformers on its maps.
DEFAULT = ('cls/hrformer_t_imagenet_224.py', 'pose/hrformer_t_coco_256x192.py',
           'seg/hrformer_t_camvid_196x252.py',
           'pose/hrformer_t_lspet_112x112_nodw_shift.py',
           'cls/hrnet_t_imagenet_224.py', 'cls/swin_t_imagenet_224.py',
           'pose/tokenpose_l-d24_coco_256x192.py')
FRAMEWORKS = dict(cls='mmpretrain', pose='mmpose', seg='mmseg')
# PRTR's loss matches queries and keypoints with SciPy, as its authors do.
WITHOUT_LOSS = ('PRTRHead', )


def distinct_models(task):
    """Return one config for each model that a task's configs describe."""
    found = {}
    for path in sorted(CONFIGS.glob(f'{task}/*.py')):
        if path.stem.startswith('custom_'):  # templates without a size
            continue
        name = str(path.relative_to(CONFIGS))
        cfg = Config.fromfile(path)
        key = str((cfg.model, cfg.get('codec')))
        found.setdefault(key, name)
    return sorted(found.values())


def without_metrics(cfg: Config, monkeypatch):
    """Leave out what the frameworks' own heads compute on the CPU."""
    if cfg.default_scope == 'mmpose':
        cfg.model.train_cfg = dict(
            cfg.model.get('train_cfg') or {}, compute_acc=False)
    if cfg.default_scope == 'mmseg':
        monkeypatch.setattr(
            'mmseg.models.decode_heads.decode_head.accuracy',
            lambda logits, labels, ignore_index: logits.new_zeros(1))


def with_few_blocks(backbone: dict):
    """Make HRFormer as short as it can be with all kinds of its blocks."""
    if isinstance(backbone.get('arch'), str):
        arch = ARCHS[backbone['arch']]
        backbone['arch'] = dict(
            channels=arch.channels, heads=arch.heads, modules=(1, 1, 1),
            blocks=2)


def first_fault(name: str, monkeypatch, is_whole: bool = True) -> str:
    """Run a config's model on the pretended GPU.

    Returns:
        The first CPU tensor that was made, or ``''``.
    """
    cfg = Config.fromfile(CONFIGS / name)
    if not is_whole:
        with_few_blocks(cfg.model.backbone)
    without_metrics(cfg, monkeypatch)
    head = cfg.model.get('head') or {}
    found = fake_gpu.run(
        cfg, loss=not str(head.get('type')).endswith(WITHOUT_LOSS))
    return found[0] if found else ''


@pytest.mark.parametrize('name', DEFAULT)
def test_models_neither_synchronize_with_the_gpu_nor_use_the_cpu(
        name, monkeypatch):
    pytest.importorskip(FRAMEWORKS[name.split('/')[0]])
    assert first_fault(name, monkeypatch, is_whole=False) == ''


@pytest.mark.slow
@pytest.mark.parametrize('task', FRAMEWORKS)
def test_no_config_has_a_model_that_synchronizes(task, monkeypatch):
    pytest.importorskip(FRAMEWORKS[task])
    faults = {}
    for name in distinct_models(task):
        try:
            faults[name] = first_fault(name, monkeypatch)
        except Exception as error:  # to see those of other models, too
            faults[name] = repr(error)
    assert faults and {k: v for k, v in faults.items() if v} == {}


class Careless(nn.Module):
    """Does on the GPU what must not be done there."""

    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fault == 'branch' and x.sum() > 0:
            return -x
        if self.fault == 'mask':
            return x[x > 0]
        if self.fault == 'tensor':
            return x + torch.arange(x.shape[-1]).to(x.device)
        return x


@pytest.mark.parametrize('fault', ['branch', 'mask', 'tensor', ''])
def test_the_check_finds_branches_masks_and_cpu_tensors(fault):
    with fake_tensor.FakeTensorMode():
        x = torch.zeros(2, 3, device=fake_gpu.GPU)
        with fake_gpu.CPUTensors() as watch:
            if fault in ('branch', 'mask'):
                with pytest.raises((fake_tensor.DataDependentOutputException,
                                    fake_tensor.DynamicOutputShapeException)):
                    Careless(fault)(x)
            else:
                Careless(fault)(x)
    assert bool(watch.found) == (fault == 'tensor')
