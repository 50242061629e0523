# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Segmentation configs overfit single images with MMSegmentation's Runner.

The images are enlarged, because an output of stride 4 cannot hold classes of
a few pixels, and the hardest pixels are mined, because of those classes.
"""
import pytest
from helpers import CONFIGS, SHARED

from benchmarks.overfit import overfit
from hrformer_mm.quickstart.synthetic.scenes import make_scenes

SMALL = {
    'model.decode_head.channels': 64,
    'model.decode_head.ocr_channels': 32,
    'model.decode_head.loss_decode.type': 'hrformer_mm.OHEMCrossEntropyLoss',
    'model.decode_head.loss_decode.min_kept': 2000,
}


def options(width, height, images, labels, **kwargs):
    """Train and evaluate at one size, on images of one folder."""
    load = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(width, height))
    ]
    label, pack = dict(type='LoadAnnotations'), dict(type='PackSegInputs')
    prefix = 'train_dataloader.dataset.data_prefix.'
    return {
        prefix + 'img_path': images,
        prefix + 'seg_map_path': labels,
        'train_dataloader.dataset.pipeline': [load[0], label, load[1], pack],
        'val_dataloader.dataset.pipeline': [*load, label, pack],
        'model.data_preprocessor.size': (height, width),
        **SMALL,
        **kwargs
    }


def learn(name, root, work_dir, iters, **kwargs):
    """mIoU over the classes present, in percent."""
    return overfit(
        str(CONFIGS / f'seg/{name}.py'), str(work_dir), str(root), iters, 1,
        2e-3, options(**kwargs))['value']


def shared(name):
    if not (SHARED / 'data' / name).exists():
        pytest.skip('the real images are not part of the repository')
    return SHARED / 'data' / name


@pytest.mark.slow
def test_a_drawn_street_is_overfit(tmp_path):
    make_scenes(tmp_path / 'data', 1, 1)
    value = learn(
        'hrformer_t_cityscapes_512x1024', tmp_path / 'data', tmp_path / 'run',
        320, width=224, height=112, images='leftImg8bit/train',
        labels='gtFine/train')
    assert value >= 90


@pytest.mark.slow
def test_a_street_of_cityscapes_is_overfit(tmp_path):
    value = learn(
        'hrformer_t_cityscapes_512x1024', shared('cityscapes_mini'),
        tmp_path / 'run', 250, width=512, height=256,
        images='leftImg8bit/val', labels='gtFine/val')
    assert value >= 90


@pytest.mark.slow
@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_person_of_lip_is_overfit(split, tmp_path):
    value = learn(
        'hrformer_t_pascal-context_520x520', shared('lip_mini'),
        tmp_path / 'run', 250, width=224, height=320,
        images=f'{split}_images', labels=f'{split}_segmentations', **{
            'train_dataloader.dataset.type': 'LIPDataset',
            'train_dataloader.dataset.ann_file': '',
            'model.decode_head.num_classes': 20
        })
    assert value >= 90
