# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Custom keypoints: the template, and errors found in the data."""
import json
import runpy

import cv2
import numpy as np
import pytest
from animals import (
    NAMES,
    TEMPLATE,
    TINY,
    annotations,
    config,
    save,
    write_animals,
)
from helpers import (
    CONFIGS,
    ROOT,
    SHARED,
    last_scalars,
    run_training,
    tiny_config,
    write_tiny_coco,
)
from mmengine.config import Config

from hrformer_mm.datasets import keypoint_metainfo as keypoints
from hrformer_mm.datasets.validation.common import (
    check_datasets,
    describe_summary,
)
from hrformer_mm.engine.train import set_data_root, use_tensorboard

pytest.importorskip('mmpose', reason='the template is of MMPose')


@pytest.fixture
def root(tmp_path):
    return write_animals(tmp_path / 'cats')


def problems(root, loader='train_dataloader'):
    return [
        str(p)
        for p in check_datasets(config(root), workers=2)[loader].problems
    ]


# The template


def test_the_template_trains_and_evaluates(root, tmp_path):
    cfg = tiny_config(TEMPLATE, tmp_path / 'work', root, **TINY)
    use_tensorboard(cfg)
    runner = run_training(cfg)
    scalars = last_scalars(runner)
    assert runner.iter == 2
    assert np.isfinite(scalars['train/loss'])
    assert 0 <= scalars['val/coco/AP'] <= 1
    meta = runner.val_loop.dataloader.dataset.metainfo
    assert meta['flip_indices'] == [0, 2, 1, 4, 3, 5]
    assert meta['num_keypoints'] == runner.model.head.out_channels == 6
    assert meta['sigmas'].tolist() == pytest.approx([0.05] * 6)
    check_events(tmp_path / 'work')


def check_events(work_dir):
    """TensorBoard reads what the Runner logged, beside scalars.json."""
    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator')
    folder, = work_dir.glob('*/vis_data')
    assert (folder / 'scalars.json').is_file()
    events = accumulator.EventAccumulator(str(folder)).Reload()
    losses = events.Scalars('loss')
    assert [e.step for e in losses] == [1, 2]
    assert all(np.isfinite(e.value) for e in losses)
    assert {'lr', 'coco/AP'} <= set(events.Tags()['scalars'])


def test_tensorboard_is_enabled_by_a_flag(root, monkeypatch):
    main = runpy.run_path(str(ROOT / 'tools/train.py'))['main']
    asked = []
    monkeypatch.setattr('hrformer_mm.engine.train.train', asked.append)
    for flags in ([], ['--tensorboard']):
        main([str(TEMPLATE), '--data-root', str(root), *flags])
    kinds = [[b['type'] for b in cfg.visualizer.vis_backends] for cfg in asked]
    assert kinds == [['LocalVisBackend'],
                     ['LocalVisBackend', 'TensorboardVisBackend']]


def test_missing_tensorboard_fails_with_one_line(root, monkeypatch):
    monkeypatch.setattr('hrformer_mm.engine.run_config.find_spec',
                        lambda name: None)
    with pytest.raises(ImportError, match='pip install tensorboard'):
        use_tensorboard(config(root))


def test_left_and_right_in_names_make_the_pairs():
    info = keypoints.make_metainfo(['tail', 'ear_right', 'ear_left'])
    swaps = [p['swap'] for p in info['keypoint_info'].values()]
    assert swaps == ['', 'ear_left', 'ear_right']


@pytest.mark.parametrize('change, match', [
    (dict(names=['a', 'a']), 'must differ'),
    (dict(names=['left_ear']), r"\['left_ear'\] have no counterpart"),
    (dict(links=[('nose', 'chin')]), r"links name \['chin'\]"),
    (dict(sigmas=[.1, .1]), 'each of the 1 keypoints'),
    (dict(sigmas=0), 'positive'),
])
def test_inconsistent_names_are_rejected(change, match):
    with pytest.raises(ValueError, match=match):
        keypoints.make_metainfo(**{'names': ['nose'], **change})


# What is found


def test_valid_data_is_counted(root):
    summaries = check_datasets(config(root))
    assert list(summaries) == ['train_dataloader', 'val_dataloader']
    summary = summaries['train_dataloader']
    assert summary.problems == []
    assert summary.counts['images'] == summary.counts['instances'] == 4
    assert summary.classes == dict.fromkeys(NAMES, 4)
    lines = describe_summary(summary)
    assert lines[0].endswith('6 of 6 keypoints')
    assert lines[1] == 'images of 90 x 70 (width x height)'


FAULTS = {
    'point outside': (
        lambda a: a['keypoints'].__setitem__(slice(0, 3), [95.5, 3, 2]),
        'has nose at (95.5, 3), outside its image of 90 x 70'),
    'wrong length': (
        lambda a: a['keypoints'].append(1.),
        'has 19 numbers for keypoints; 6 keypoints have 18'),
    'visibility': (
        lambda a: a['keypoints'].__setitem__(2, 3),
        'has the visibilities [3]; 0 is not labelled, 1 hidden, 2 visible'),
    'count': (
        lambda a: a.update(num_keypoints=2),
        'says num_keypoints 2, but 6 are labelled'),
    'empty box': (
        lambda a: a.update(bbox=[5, 5, 0, 9]),
        'has a box without area, [5, 5, 0, 9]'),
    'box of corners': (
        lambda a: a.update(bbox=[50, 40, 80, 60]),
        'has the box [50, 40, 80, 60], outside its image of 90 x 70'),
    'area': (
        lambda a: a.update(area=0),
        'has the area 0, by which AP divides'),
    'lacking': (
        lambda a: [a.pop(key) for key in ('area', 'bbox')],
        'lacks area, bbox'),
    'image': (
        lambda a: a.update(image_id=77),
        'is of image 77, which is not in the list'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_an_annotation_error_is_reported(fault, root):
    harm, line = FAULTS[fault]
    content = annotations(root)
    harm(content['annotations'][1])
    save(root, 'train', content)
    path = root / 'annotations/train.json'
    assert problems(root) == [f'{path}, annotation 2 {line}']
    assert problems(root, 'val_dataloader') == []


def test_hidden_and_absent_keypoints_are_valid(root):
    content = annotations(root)
    for a in content['annotations']:
        a['keypoints'][15:] = [0, 0, 0]
        a['keypoints'][2] = 1
        a['num_keypoints'] = 5
    save(root, 'train', content)
    summary = check_datasets(config(root))['train_dataloader']
    assert summary.problems == [] and summary.absent == ['tail']
    assert 'keypoints that do not occur: tail' in describe_summary(summary)


def test_duplicate_ids_are_found(root):
    content = annotations(root)
    content['annotations'][2]['id'] = 1
    content['images'].append(content['images'][0])
    save(root, 'train', content)
    found = problems(root)
    path = root / 'annotations/train.json'
    assert f'{path} has 2 images of id 1' in found
    assert f'{path} has 2 annotations of id 1' in found


def test_data_without_an_instance_is_found(root):
    content = annotations(root)
    for a in content['annotations']:
        a['iscrowd'] = 1
    save(root, 'train', content)
    line, = problems(root)
    assert line.endswith('has no instance with keypoints that is not a crowd')


def test_broken_image_files_are_found(root):
    (root / 'train/1.jpg').unlink()
    path = root / 'train/2.jpg'
    path.write_bytes(path.read_bytes()[:-500])
    cv2.imwrite(str(root / 'train/3.jpg'), np.zeros((90, 70, 3), 'u1'))
    found = problems(root)
    assert found[0] == f'{root}/train/1.jpg does not exist'
    assert found[1].startswith(f'{path} cannot be read as an image')
    assert found[2] == (f'{root}/train/3.jpg is 70 x 90, its annotation says '
                        '90 x 70 (width x height)')


def test_a_head_with_another_number_of_keypoints_is_found(root):
    cfg = config(root)
    cfg.model.head.out_channels = 17
    line = str(check_datasets(cfg)['train_dataloader'].problems[0])
    assert line == ('model.head.out_channels is 17, but the dataset has 6 '
                    'keypoints')


@pytest.mark.parametrize('harm, words', [
    (lambda i: i['keypoint_info'][1].update(swap='left_paw'),
     'left_ear swaps with left_paw, but left_paw with right_paw'),
    (lambda i: i['keypoint_info'][1].update(swap='ear'),
     'left_ear swaps with ear, which is no keypoint'),
    (lambda i: [i['keypoint_info'][k].update(swap='') for k in (1, 2)],
     'left_ear swaps with none in mirrored images, although there is '
     'right_ear'),
    (lambda i: i.update(sigmas=i['sigmas'][:-1]), '5 sigmas for 6 keypoints'),
    (lambda i: i.update(sigmas=[0, *i['sigmas'][1:]]),
     'sigmas that are not positive'),
    (lambda i: i['skeleton_info'][0].update(link=('nose', 'chin')),
     "links ['chin'], which are no keypoints"),
], ids=['crossed', 'unknown', 'unpaired', 'sigmas', 'zero', 'link'])
def test_errors_in_pairs_and_sigmas_are_found(harm, words, root):
    cfg = config(root)
    harm(cfg.train_dataloader.dataset.metainfo)
    found = [str(p) for p in check_datasets(cfg)['train_dataloader'].problems]
    assert any(words in line and line.startswith('metainfo of custom')
               for line in found)


def test_boxes_of_a_detector_are_compared_with_the_images(tmp_path):
    root = write_tiny_coco(tmp_path / 'coco')
    cfg = Config.fromfile(CONFIGS / 'pose/hrformer_t_coco_256x192.py')
    set_data_root(cfg, str(root))
    sound = check_datasets(cfg)['val_dataloader']
    assert sound.counts['instances'] == 6
    assert not any('person_detection' in p.path for p in sound.problems)
    path = next(root.glob('person_detection_results/*val*'))
    found = json.loads(path.read_text())
    found[0]['image_id'], found[1]['bbox'] = 99, [1, 1, -5, 5]
    path.write_text(json.dumps(found))
    problems = check_datasets(cfg)['val_dataloader'].problems
    assert [str(p) for p in problems if 'detection' in p.path] == [
        f'{path}, box 0 is of image 99, which the annotations lack',
        f'{path}, box 1 has a box without area, [1, 1, -5, 5]']


def test_images_without_annotations_are_counted(tmp_path):
    root = write_tiny_coco(tmp_path / 'coco')
    cfg = Config.fromfile(CONFIGS / 'pose/hrformer_b_coco_384x288_testdev.py')
    set_data_root(cfg, str(root))
    summary = check_datasets(cfg)['test_dataloader']
    assert summary.problems == [] and summary.counts['images'] == 3


def test_a_file_that_is_not_json_fails_with_one_line(root):
    (root / 'annotations/train.json').write_text('{"images": [')
    line, = problems(root)
    assert line.startswith(f'{root}/annotations/train.json is not JSON')
    assert problems(root, 'val_dataloader') == []


def test_real_annotations_of_coco_are_read():
    data = SHARED / 'data/coco_mini'
    if not data.is_dir():
        pytest.skip('the shared images of COCO are not here')
    cfg = Config.fromfile(CONFIGS / 'pose/hrformer_t_coco_256x192.py')
    cfg.train_dataloader.dataset.update(
        data_root=str(data), ann_file='person_keypoints.json',
        data_prefix=dict(img='images/'))
    for loader in ('val_dataloader', 'test_dataloader'):
        cfg[loader].dataset = cfg.train_dataloader.dataset
    summary = check_datasets(cfg)['train_dataloader']
    assert summary.problems == []
    assert summary.counts['images'] == 4 and len(summary.classes) == 17


def test_the_tool_draws_a_contact_sheet_and_overwrites_none(
        root, tmp_path, capsys):
    main = runpy.run_path(str(ROOT / 'tools/check_dataset.py'))['main']
    args = [str(TEMPLATE), '--data-root', str(root), '--out-dir',
            str(tmp_path / 'out')]
    main(args)
    sheet = cv2.imread(str(tmp_path / 'out/train_dataloader.png'))
    assert sheet.shape[1] == 1500 and (sheet.reshape(-1, 3) !=
                                       255).any(1).mean() > .2
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 2
    assert '--force replaces it' in capsys.readouterr().err
    main([*args, '--force'])
