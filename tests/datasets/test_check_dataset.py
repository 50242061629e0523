# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Errors in segmentation data are found before training."""
import subprocess
import sys

import cv2
import numpy as np
import pytest
from helpers import CONFIGS, ROOT
from mmengine.config import Config
from seg_data import LAYOUTS, SIZE, pair, write_tiny

from hrformer_mm.datasets.validation.common import (
    check_datasets,
    describe_summary,
)
from hrformer_mm.engine.train import set_data_root

CONFIG_NAMES = {
    'cityscapes': 'hrformer_s_cityscapes_512x1024',
    'pascal-context': 'hrformer_s_pascal-context_520x520',
    'pascal-context-60': 'hrformer_s_pascal-context-60_520x520',
    'coco-stuff': 'hrformer_s_coco-stuff_520x520',
    'coco-stuff-164k': 'hrformer_s_coco-stuff-164k_520x520',
    'ade20k': 'hrformer_s_ade20k_520x520',
}


def config(dataset, root) -> Config:
    cfg = Config.fromfile(CONFIGS / f'seg/{CONFIG_NAMES[dataset]}.py')
    set_data_root(cfg, str(root))
    return cfg


def files(dataset, root, number=1):
    """Image and label of one training sample."""
    layout = LAYOUTS[dataset]
    split = layout['splits'][0]
    return pair(root, layout, split, f'town_{split}_{number:06d}')


def problems(dataset, root):
    return check_datasets(config(dataset, root))['train_dataloader'].problems


@pytest.fixture
def root(tmp_path):
    return write_tiny('cityscapes', tmp_path)


@pytest.mark.parametrize('dataset', CONFIG_NAMES)
def test_valid_data_is_counted_without_problems(dataset, tmp_path):
    summaries = check_datasets(config(dataset, write_tiny(dataset, tmp_path)))
    assert list(summaries) == ['train_dataloader', 'val_dataloader']
    for summary in summaries.values():
        assert summary.counts == dict(images=4, labels=4)
        assert summary.problems == []
        # Each image has 12 blocks of a class, one of them unlabelled; PASCAL
        # with background counts that, too.
        blocks = 12 if dataset == 'pascal-context-60' else 11
        pixels = SIZE[0] * SIZE[1] // 12
        assert sum(summary.classes.values()) <= 4 * blocks * pixels
        assert sum(summary.classes.values()) > 3 * blocks * pixels


def test_classes_are_counted_by_name_and_absent_ones_listed(root):
    for i in range(4):
        label = np.full(SIZE, 2, np.uint8)
        label[0] = 255
        cv2.imwrite(str(files('cityscapes', root, i)[1]), label)
    summary = check_datasets(config('cityscapes', root))['train_dataloader']
    assert summary.classes['building'] == 4 * (SIZE[0] - 1) * SIZE[1]
    assert 'road' in summary.absent and len(summary.absent) == 18
    assert any('1 of 19 classes' in line for line in describe_summary(summary))


@pytest.mark.parametrize('dataset, value, words', [
    ('cityscapes', 19, '0 to 18 and 255'),
    ('pascal-context', 60, '0 to 59 and 255'),
    ('pascal-context-60', 60, '0 to 59 and 255'),
    ('coco-stuff', 172, '0 to 171 and 255'),
    ('coco-stuff-164k', 171, '0 to 170 and 255'),
    ('ade20k', 151, '0 to 150 and 255'),
])
def test_a_label_out_of_range_is_reported(dataset, value, words, tmp_path):
    _, path = files(dataset, write_tiny(dataset, tmp_path))
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[5, 5] = value
    cv2.imwrite(str(path), label)
    found = problems(dataset, tmp_path)
    assert [p.path for p in found] == [str(path)]
    assert f'[{value}]' in found[0].what and words in found[0].what


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-300])


def write_text(path):
    path.write_text('not an image')


@pytest.mark.parametrize('which', [0, 1], ids=['image', 'label'])
@pytest.mark.parametrize('harm', [cut_off, write_text])
def test_a_file_that_cannot_be_read_is_reported(harm, which, root):
    path = files('cityscapes', root)[which]
    if path.stat().st_size < 400:
        noise = np.random.default_rng(0).integers(0, 19, SIZE, 'u1')
        cv2.imwrite(str(path), noise)
    harm(path)
    found = problems('cityscapes', root)
    assert [p.path for p in found] == [str(path)]
    assert 'cannot be read as an image' in found[0].what


def test_a_missing_label_is_reported(root):
    path = files('cityscapes', root)[1]
    path.unlink()
    assert [str(p) for p in problems('cityscapes', root)] == [
        f'{path} does not exist'
    ]


def test_a_missing_image_of_a_list_is_reported(tmp_path):
    path = files('pascal-context', write_tiny('pascal-context', tmp_path))[0]
    path.unlink()
    assert [str(p) for p in problems('pascal-context', tmp_path)] == [
        f'{path} does not exist'
    ]


def test_a_label_of_another_size_than_its_image_is_reported(root):
    path = files('cityscapes', root)[1]
    cv2.imwrite(str(path), np.zeros((10, 20), np.uint8))
    found, = problems('cityscapes', root)
    assert found.path == str(path)
    assert '20 x 10' in found.what and '64 x 48' in found.what


def test_a_color_label_is_reported(root):
    path = files('cityscapes', root)[1]
    cv2.imwrite(str(path), np.zeros((*SIZE, 3), np.uint8))
    found, = problems('cityscapes', root)
    assert 'has 3 channels' in found.what


def test_a_head_with_another_number_of_classes_is_reported(root):
    cfg = config('cityscapes', root)
    cfg.model.decode_head.num_classes = 7
    found = check_datasets(cfg)['train_dataloader'].problems
    assert [str(p) for p in found] == [
        'model.decode_head.num_classes is 7, but the dataset has 19 classes'
    ]


def test_an_empty_folder_is_reported(root):
    for path in (root / 'leftImg8bit/train').rglob('*.png'):
        path.unlink()
    found, = problems('cityscapes', root)
    assert 'leftImg8bit/train' in found.path and 'no images' in found.what


def test_a_limit_samples_the_whole_dataset(root):
    cfg = config('cityscapes', root)
    cut_off(files('cityscapes', root, 2)[0])
    assert check_datasets(cfg, limit=2)['train_dataloader'].problems
    assert check_datasets(
        cfg, limit=1)['train_dataloader'].counts['images'] == 1


@pytest.mark.parametrize('name', ['limit', 'workers'])
def test_a_number_below_one_is_rejected(name, root):
    with pytest.raises(ValueError, match=f'{name} must be at least 1'):
        check_datasets(config('cityscapes', root), **{name: 0})


def test_a_task_that_cannot_be_checked_is_rejected():
    with pytest.raises(ValueError, match='mmseg'):
        check_datasets(Config(dict(default_scope='mmaction')))


def run_tool(*args):
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools/check_dataset.py'), *args],
        capture_output=True, text=True, cwd=ROOT)


def test_the_tool_prints_counts_and_exits_with_1_on_problems(root):
    file = str(CONFIGS / 'seg/hrformer_s_cityscapes_512x1024.py')
    result = run_tool(file, '--data-root', str(root))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('4 images, 4 labels') == 2
    path = files('cityscapes', root)[1]
    path.unlink()
    result = run_tool(file, '--data-root', str(root))
    assert result.returncode == 1
    assert f'problem: {path} does not exist' in result.stdout


def test_the_tool_reports_missing_data_in_one_line(tmp_path):
    file = str(CONFIGS / 'seg/hrformer_s_cityscapes_512x1024.py')
    result = run_tool(file, '--data-root', str(tmp_path / 'nowhere'))
    assert result.returncode == 2
    assert result.stderr.count('\n') == 1 and 'nowhere' in result.stderr
