# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Errors in image folders for classification are found."""
import runpy

import cv2
import numpy as np
import pytest
from helpers import CONFIGS, ROOT
from mmengine.config import Config

from hrformer_mm.datasets.validation.cls import read_listing
from hrformer_mm.datasets.validation.common import check_datasets


def write(path, broken=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    cv2.imwrite(str(path), image)
    if broken:
        path.write_bytes(path.read_bytes()[:-500])


@pytest.fixture
def root(tmp_path):
    for part in ('train', 'val'):
        for name in ('ant', 'bee'):
            write(tmp_path / part / name / '0.jpg')
    return tmp_path


def checked(root, classes=2, limit=None, **dataset):
    """Problems of each loader, as lines."""
    def loader(part):
        kind = dict(type='CustomDataset', data_root=str(root),
                    data_prefix=part)
        return dict(dataset=dict(kind, **dataset))

    cfg = Config(dict(
        default_scope='mmpretrain', train_dataloader=loader('train'),
        val_dataloader=loader('val'), test_dataloader=loader('val'),
        model=dict(head=dict(num_classes=classes))))
    return cfg, {
        k: [str(p) for p in summary.problems]
        for k, summary in check_datasets(cfg, limit, workers=2).items()
    }


def test_valid_folders_have_no_problems(root):
    cfg, problems = checked(root)
    assert problems == dict(train_dataloader=[], val_dataloader=[])
    summary = check_datasets(cfg)['train_dataloader']
    assert summary.counts == dict(images=2)
    assert summary.classes == dict(ant=1, bee=1)


@pytest.mark.parametrize('name', ['cut.jpg', 'cut.png'])
def test_a_truncated_image_is_found(name, root):
    write(root / 'train' / 'ant' / name, broken=True)
    line, = checked(root)[1]['train_dataloader']
    assert line.startswith(f'{root}/train/ant/{name} cannot be read as an im')
    assert '\n' not in line


def test_a_file_that_is_not_an_image_is_found(root):
    (root / 'val' / 'bee' / 'page.jpg').write_text('<html>404</html>')
    line, = checked(root)[1]['val_dataloader']
    assert line == f'{root}/val/bee/page.jpg cannot be read as an image'


def test_an_image_that_opencv_cannot_read_is_found(root, monkeypatch):
    monkeypatch.setattr('cv2.haveImageReader', lambda path: 'bee' not in path)
    line, = checked(root)[1]['val_dataloader']
    assert 'bee/0.jpg is a JPEG, which OpenCV' in line


def test_an_empty_class_folder_is_found(root):
    for part in ('train', 'val'):
        (root / part / 'cat').mkdir()
    (root / 'train' / 'cat' / 'notes.txt').write_text('none yet')
    cfg, problems = checked(root, classes=3)
    assert not any(problems.values())  # it may be empty in one split
    summary = check_datasets(cfg)['train_dataloader']
    line, = map(str, summary.warnings)
    assert line.startswith(f'{root}/train/cat holds no images')
    assert summary.absent == ['cat']


def test_a_head_with_another_number_of_classes_is_found(root):
    line, = checked(root, classes=10)[1]['train_dataloader']
    assert line == (f'{root}/train has 2 class folders, but '
                    'model.head.num_classes is 10')


def test_classes_in_only_one_split_are_found(root):
    write(root / 'val' / 'cat' / '0.jpg')
    lines = checked(root)[1]['val_dataloader']
    assert lines[0].startswith(f'{root}/train has no folder cat as {root}/val')
    assert lines[1].startswith(f'{root}/val has 3 class folders')


def test_label_files_are_searched_where_mmpretrains_imagenet_does(root):
    (root / 'meta').mkdir()
    (root / 'meta' / 'train.txt').write_text('ant/0.jpg 0\nbee/0.jpg 12\n')
    listing = read_listing(
        dict(type='ImageNet', data_root=str(root), split='train'))
    assert listing.source == root / 'meta' / 'train.txt'
    assert listing.samples[1] == (root / 'train' / 'bee' / '0.jpg', 12)


def test_labels_out_of_range_are_found(root):
    (root / 'labels.txt').write_text('ant/0.jpg 0\nbee/0.jpg 12\n')
    line, = checked(root, 10, ann_file='labels.txt')[1]['train_dataloader']
    assert line == (f'{root}/labels.txt has classes up to 12, but '
                    'model.head.num_classes is 10, which allows 0 to 9 '
                    f'(see {root}/train/bee/0.jpg)')


def test_errors_in_a_label_file_are_found(root):
    (root / 'labels.txt').write_text('ant/0.jpg 0\nbee/0.jpg\nno.jpg 1\n')
    lines = checked(root, ann_file='labels.txt')[1]['train_dataloader']
    assert lines[0].startswith(f'{root}/labels.txt, line 2 is not an image')
    assert lines[1] == f'{root}/train/no.jpg does not exist'


def test_two_places_for_the_number_of_classes_are_compared(root):
    cfg, _ = checked(root)
    cfg.model.data_preprocessor = dict(num_classes=1000)
    problem = check_datasets(cfg)['train_dataloader'].problems[0]
    assert str(problem) == ('model.data_preprocessor.num_classes is 1000, '
                            'but model.head.num_classes is 2')


def test_a_limit_reads_only_some_images(root):
    write(root / 'train' / 'bee' / '1.jpg', broken=True)
    cfg, problems = checked(root, limit=1)
    assert problems['train_dataloader'] == []
    assert check_datasets(cfg, 1)['train_dataloader'].counts == dict(images=1)


def test_a_missing_split_is_reported(root):
    with pytest.raises(FileNotFoundError, match='there is no folder .*/test'):
        read_listing(dict(type='ImageNet', data_root=str(root), split='test'))


def test_the_tool_prints_one_line_for_each_problem(root, capsys):
    (root / 'train' / 'cat').mkdir()
    main = runpy.run_path(str(ROOT / 'tools/check_dataset.py'))['main']
    config = CONFIGS / 'cls/custom_folder.py'
    with pytest.raises(SystemExit) as end:
        main([str(config), '--data-root', str(root)])
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    problems = [line.strip() for line in lines if 'problem:' in line]
    assert problems[0] == (f'problem: {root}/train has 3 class folders, but '
                           'model.head.num_classes is 10')
    assert len(problems) == 3
    warned, = (line.strip() for line in lines if 'warning:' in line)
    assert warned == (f'warning: {root}/train/cat holds no images that end in '
                      '.jpg, .jpeg, .png, .ppm, .bmp, .pgm, .tif')
