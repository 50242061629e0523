# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""docs/swap.md: HRFormer in place of HRNet in the frameworks' own configs."""
import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ROOT, without_pretrained
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData

from hrformer_mm.core import ARCHS
from hrformer_mm.models.backbones import HRFormer
from hrformer_mm.utils.dataset_leaves import datasets_of

PACKAGES = ('mmpose', 'mmseg', 'mmpretrain', 'mmdet')
TABLE = re.findall(r'^\| W(\d+) \| `(.*?)` \| (\d+) \|$',
                   (ROOT / 'docs/swap.md').read_text(), re.MULTILINE)


def hrnet_configs() -> list:
    """List the HRNet configs of the installed frameworks."""
    found = []
    for package in PACKAGES:
        try:
            module = __import__(package)
        except ImportError:
            continue
        root = Path(str(module.__file__)).parent / '.mim/configs'
        for path in sorted(root.rglob('*.py')):
            if '_base_' not in path.parts and any(
                    word in str(path).lower()
                    for word in ('hrnet', 'ocrnet')):
                found.append(pytest.param(package, path, id=path.stem))
    return found


def channels_of(backbone: Config) -> list:
    """Return the channels of the four branches of an HRNet."""
    if backbone.get('extra') is None:  # MMPretrain names the width
        return [int(backbone.arch.strip('w')) * 2**i for i in range(4)]
    return list(backbone.extra.stage4.num_channels)


def several_maps(package: str, backbone: Config) -> bool:
    """Return whether an HRNet outputs all maps; MMPose's default is one."""
    extra = backbone.get('extra')
    return package != 'mmpose' or extra.stage4.get('multiscale_output', False)


def swap(package: str, path: Path) -> Config | None:
    """Return a config with HRFormer as docs/swap.md says, but shallow.

    The frameworks' HRNets of other kinds (LiteHRNet) are not in the document.
    """
    cfg = Config.fromfile(path)
    old = cfg.get('model', {}).get('backbone', {})
    if old.get('type') != 'HRNet':
        return None
    channels = channels_of(old)
    arch = dict((width, arch) for width, arch, _ in TABLE)[str(channels[0])]
    arch = eval(arch)  # 'tiny', or dict(...)
    given = ARCHS[arch].channels if isinstance(arch, str) else arch['channels']
    assert list(given) == channels
    number = 4 if several_maps(package, old) else 1
    cfg.model.backbone = dict(
        type='hrformer_mm.HRFormer', out_indices=tuple(range(number)),
        arch=dict(channels=given, heads=(1, 2, 4, 8), modules=(1, 1, 1),
                  blocks=1))
    without_pretrained(cfg.model)
    return cfg


def person(metainfo: dict, number: int) -> dict:
    """Return random people as a dataset of MMPose would."""
    rng = np.random.default_rng(0)
    points = rng.random((number, metainfo['num_keypoints'], 2)) * 60 + 30
    box = np.array([[10, 10, 110, 110]] * number)
    keys = ('dataset_name', 'num_keypoints', 'upper_body_ids',
            'lower_body_ids', 'flip_pairs', 'dataset_keypoint_weights',
            'flip_indices', 'skeleton_links')
    return dict(
        img=rng.integers(0, 255, (120, 130, 3), 'u1'), img_id=1,
        id=list(range(number)), bbox=box.astype('f4'),
        bbox_score=np.ones(number, 'f4'), area=np.full(number, 5e3, 'f4'),
        category_id=1, keypoints=points.astype('f4'),
        keypoints_visible=np.ones(points.shape[:2], 'f4'),
        **{key: metainfo[key] for key in keys})


def pose_losses(cfg: Config, model: Any) -> dict:
    """Run the training pipeline of the config itself, and its losses."""
    from mmpose.datasets.datasets.utils import parse_pose_metainfo
    dataset = cfg.train_dataloader.dataset
    kind = datasets_of(cfg, 'train_dataloader')[0].kind
    described = dataset.get('metainfo') or kind.METAINFO
    if 'subset' in dataset:  # DeepFashion sets its METAINFO when it is built
        described = dict(from_file='configs/_base_/datasets/'
                         f'deepfashion_{dataset.subset}.py')
    metainfo = parse_pose_metainfo(dict(described))
    # Albumentations is no requirement, and changes pixels only.
    steps = [dict(step) for step in dataset.pipeline
             if step.type != 'Albumentation']
    number = 2 if dataset.get('data_mode') == 'bottomup' else 1
    packed = [Compose(steps)(person(metainfo, number)) for _ in range(2)]
    data = model.data_preprocessor(pseudo_collate(packed), training=True)
    return model(**data, mode='loss')


def seg_losses(cfg: Config, model: Any) -> dict:
    from mmseg.structures import SegDataSample
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, 64, 64)))
        samples.append(sample)
    return model(torch.randn(2, 3, 64, 64), samples, mode='loss')


def cls_losses(cfg: Config, model: Any) -> dict:
    from mmpretrain.structures import DataSample
    samples = [DataSample().set_gt_label(label) for label in (0, 1)]
    return model(torch.randn(2, 3, 64, 64), samples, mode='loss')


def det_losses(cfg: Config, model: Any) -> dict:
    from mmdet.testing import demo_mm_inputs
    packed = demo_mm_inputs(2, [[3, 64, 64]] * 2, with_mask=True,
                            with_semantic=True, sem_seg_output_strides=8)
    data = model.data_preprocessor(packed, training=True)
    return model(**data, mode='loss')


LOSSES = dict(mmpose=pose_losses, mmseg=seg_losses, mmpretrain=cls_losses,
              mmdet=det_losses)


def check(package: str, path: Path):
    cfg = swap(package, path)
    if cfg is None:
        pytest.skip('has no HRNet backbone')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(package):
        model = MODELS.build(copy.deepcopy(cfg.model)).train()
        assert type(model.backbone) is HRFormer
        if not cfg.train_dataloader.dataset.get('pipeline', True):
            # MMPose has no training pipeline for associative embedding.
            assert 'ae_hrnet' in path.stem
            model(torch.zeros(2, 3, 64, 64), None, mode='tensor')
            return
        try:
            losses = LOSSES[package](cfg, model)
        except NotImplementedError as error:
            # DEKR's head deforms convolutions, which mmcv-lite cannot.
            assert 'deform_conv' in str(error) and 'dekr' in path.stem
            assert len(model.backbone(torch.zeros(2, 3, 64, 64))) == len(
                cfg.model.backbone.out_indices)
            return
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(model.backbone.conv1.weight.grad).all()


HRNETS = hrnet_configs()
FEW = [p for p in HRNETS if p.id in (
    'td-hm_hrnet-w32_8xb64-210e_mpii-256x256', 'hrnet-w18_4xb32_in1k',
    'fcn_hr18s_4xb4-20k_voc12aug-512x512',
    'fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco')]


@pytest.mark.parametrize('package, path', FEW)
def test_replacing_hrnet_trains_in_a_config_of_each_framework(package, path):
    check(package, path)


@pytest.mark.slow
@pytest.mark.parametrize('package, path', HRNETS)
def test_replacing_hrnet_trains_in_all_configs(package, path):
    check(package, path)


def test_widths_of_the_document_have_the_channels_of_their_arch():
    assert len(TABLE) >= 7
    for width, arch, total in TABLE:
        arch = eval(arch)
        channels = (ARCHS[arch].channels if isinstance(arch, str)
                    else arch['channels'])
        assert channels == tuple(int(width) * 2**i for i in range(4))
        assert sum(channels) == int(total)
