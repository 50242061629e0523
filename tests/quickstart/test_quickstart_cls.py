# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Digits as an image folder, and the quickstart that trains on them."""
import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import CONFIGS
from mmengine.config import Config

from hrformer_mm.quickstart import cls
from hrformer_mm.quickstart.runner import from_here, run
from hrformer_mm.quickstart.synthetic.digits import (
    TOTAL,
    load_digits,
    write_digits,
)

QUICK = {
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.batch_size': 4,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
}


def contents(root: Path):
    return {str(p.relative_to(root)): p.read_bytes()
            for p in root.rglob('*') if p.is_file()}


def test_all_digits_of_scikit_learn_are_used_by_default():
    assert sum(cls.TASK.images) == TOTAL == len(load_digits()[0])
    assert cls.TASK.images[1] == TOTAL // 3


def test_digits_are_the_same_every_time(tmp_path):
    for name in 'ab':
        write_digits(tmp_path / name, 20, 10, seed=3)
    write_digits(tmp_path / 'c', 20, 10, seed=4)
    first = contents(tmp_path / 'a')
    assert first == contents(tmp_path / 'b')
    assert set(first) != set(contents(tmp_path / 'c'))
    assert len(first) == 30 + 2


def test_training_and_validation_digits_do_not_overlap(tmp_path):
    write_digits(tmp_path, 300, 150)
    names = {part: [p.name for p in (tmp_path / part).rglob('*.png')]
             for part in ('train', 'val')}
    assert (len(names['train']), len(names['val'])) == (300, 150)
    assert len(set(names['train']) | set(names['val'])) == 450


def test_label_files_agree_with_folders_and_images(tmp_path):
    write_digits(tmp_path, 40, 20)
    images, labels = load_digits()
    for part, number in (('train', 40), ('val', 20)):
        lines = (tmp_path / 'meta' / f'{part}.txt').read_text().splitlines()
        assert len(lines) == number
        for line in lines:
            path, label = line.split()
            index = int(Path(path).stem)
            assert Path(path).parent.name == label == str(labels[index])
            image = cv2.imread(str(tmp_path / part / path), 0)
            small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
            # Cubic enlargement overshoots, so not every pixel comes back.
            error = np.abs(small.astype(int) - images[index])
            assert image.shape == (64, 64) and error.mean() < 16
    counts = Counter(labels)
    assert sorted(counts) == list(range(10))


def test_more_digits_than_available_are_rejected(tmp_path):
    with pytest.raises(ValueError, match='cannot split 1797 digits'):
        write_digits(tmp_path, 1500, 500)


def test_quickstart_runs_to_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = io.StringIO()
    outcome = run(cls.TASK, work_dir='work', epochs=1, images=(8, 6),
                  cfg_options=QUICK, stream=stream)
    assert 0 <= outcome.metrics['accuracy/top1'] <= 100
    names = ['confusion_matrix.png', 'predictions.png', 'curves.png']
    assert [p.name for p in outcome.pictures] == names
    for picture in outcome.pictures:
        assert cv2.imread(str(picture)).std() > 0
    assert outcome.checkpoint.is_file()
    text = stream.getvalue()
    assert 'top-1 accuracy' in text
    commands = [from_here(line) for line in cls.next_commands(outcome)]
    assert len(commands) == 3 and all(line in text for line in commands)


def digits_config():
    return Config.fromfile(CONFIGS / cls.TASK.config)


def test_own_folder_sets_the_number_of_classes(tmp_path):
    for part in ('train', 'val'):
        for name in ('ant', 'bee', 'cat'):
            (tmp_path / part / name).mkdir(parents=True)
    cfg = digits_config()
    cls.use_data_root(cfg, str(tmp_path))
    assert cfg.model.head.num_classes == 3
    assert cfg.model.data_preprocessor.num_classes == 3
    assert 'ann_file' not in cfg.val_dataloader.dataset
    assert cfg.train_dataloader.dataset.data_root == f'{tmp_path}/'


def test_own_folder_like_imagenet_is_read_by_its_label_files(tmp_path):
    for name in ('train/ant', 'train/bee', 'val', 'meta'):
        (tmp_path / name).mkdir(parents=True)
    cfg = digits_config()
    cls.use_data_root(cfg, str(tmp_path))
    assert cfg.val_dataloader.dataset.ann_file == 'meta/val.txt'
    assert cfg.train_dataloader.dataset.metainfo.classes == ['ant', 'bee']


def test_own_folder_without_classes_is_rejected(tmp_path):
    (tmp_path / 'train').mkdir()
    with pytest.raises(ValueError, match='at least two classes, but has 0'):
        cls.use_data_root(digits_config(), str(tmp_path))


def test_many_classes_are_drawn_without_numbers(tmp_path):
    rng = np.random.default_rng(0)
    found = cls.Predictions(
        ['x.png'] * 80, np.arange(80) % 40, rng.dirichlet(np.ones(40), 80),
        [f'class {i}' for i in range(40)])
    cls.draw_confusion(found, tmp_path / 'matrix.png')
    assert cv2.imread(str(tmp_path / 'matrix.png')).std() > 0


@pytest.mark.slow
def test_quickstart_reaches_95_percent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run(cls.TASK)
    assert outcome.metrics['accuracy/top1'] >= 95
