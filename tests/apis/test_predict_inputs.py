# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The command predicts on all kinds of inputs and writes complete files."""
import subprocess
import sys
from configparser import ConfigParser
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT
from predicting import (
    BAD,
    COCO,
    CONFIG_FILES,
    GOOD,
    PERSON,
    arguments,
    names,
    read,
    run,
    smooth,
    write_boxes,
    write_configs,
    write_photos,
    write_video,
    write_zoo,
)
from rich.console import Console
from tool_runs import error_of

from hrformer_mm.__main__ import main
from hrformer_mm.apis import inputs, load_predictor, predict
from hrformer_mm.apis.cls import ClsPredictor
from hrformer_mm.apis.run import make_progress


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    return write_configs(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp('photos'))


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp('video') / 'clip.mp4'))


# Inputs of all kinds


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_bad_inputs_are_reported_and_skipped(saved, task, tmp_path, capsys):
    zoo, out = write_zoo(tmp_path / 'zoo'), tmp_path / 'out'
    code = run(saved, task, zoo, tmp_path / 'nowhere.jpg', tmp_path / '*.tif',
               '--out-dir', out)
    captured = capsys.readouterr()
    assert code == 1 and '6 skipped' in captured.out
    lines = [x for x in captured.err.splitlines() if x.startswith('skipped')]
    assert len(lines) == 6
    for name in (*BAD, 'nowhere.jpg', '*.tif'):
        assert sum(name in line for line in lines) == 1, name
    content = read(out / ('images.json' if task == 'pose' else
                          'predictions.json'))  # yapf: disable
    images = content if task == 'cls' else content['images']
    assert {Path(i['file_name']).name for i in images} == GOOD
    assert {x for x in names(out) if 'overlays' in x} == {
        'overlays/' + str(Path(name).with_suffix('.png')) for name in GOOD
        if '#' not in name and name != 'color.jpg'
    } | {'overlays/color.jpg', 'overlays/moving.mp4'}


def test_grey_and_16_bit_images_are_read_as_their_8_bit_colors(tmp_path):
    zoo = write_zoo(tmp_path / 'zoo')
    from mmpose.datasets.transforms import LoadImage
    load = LoadImage()
    deep = load(dict(img_path=str(zoo / 'deep.png')))['img']
    assert deep.dtype == np.uint8 and (deep == smooth(0)).all()
    grey = load(dict(img_path=str(zoo / 'grey.png')))['img']
    assert (grey == smooth(0)[..., :1]).all()


@pytest.mark.parametrize('task', CONFIG_FILES)
def test_a_video_yields_a_video(saved, task, video, tmp_path):
    assert run(saved, task, video, '--out-dir', tmp_path) == 0
    clip = cv2.VideoCapture(str(tmp_path / 'overlays/clip.mp4'))
    frames = list(inputs.captured(clip))
    assert len(frames) == 6 and clip.get(cv2.CAP_PROP_FPS) == 12
    name = 'images.json' if task == 'pose' else 'predictions.json'
    content = read(tmp_path / name)
    images = content if task == 'cls' else content['images']
    assert [i['file_name'] for i in images] == [f'{video}#{i}'
                                                for i in range(6)]
    if task == 'seg':
        assert (tmp_path / 'labels/clip/000005.png').is_file()


def test_frames_of_a_video_have_boxes_of_their_own(saved, video, tmp_path):
    boxes = write_boxes(tmp_path / 'boxes.json',
                        {'clip.mp4#1': [PERSON], 'clip.mp4#4': [PERSON]})
    out = tmp_path / 'out'
    assert run(saved, 'pose', video, '--boxes', boxes, '--out-dir', out) == 0
    assert [p['image_id'] for p in read(out / 'predictions.json')] == [2, 5]
    assert len(read(out / 'images.json')['images']) == 6
    found = COCO(str(out / 'images.json')).loadRes(
        str(out / 'predictions.json'))
    assert found.imgs[2]['file_name'].endswith('clip.mp4#1')


def test_people_of_clips_have_ids_and_smoothing_moves_their_keypoints(
        saved, photos, video, tmp_path):
    boxes = {f'clip.mp4#{i}': [[5 + i, 5, 40, 80], [70 - i, 5, 40, 80]][
        ::1 - i % 2 * 2] for i in range(6)}
    boxes = write_boxes(tmp_path / 'b.json', {**boxes, '0.png': [PERSON]})
    found = {}
    for name, more in dict(raw=[], smooth=['--smooth']).items():
        out = tmp_path / name
        assert run(saved, 'pose', video, photos / '0.png', '--boxes', boxes,
                   '--out-dir', out, *more) == 0
        *people, other = read(out / 'predictions.json')
        assert 'track_id' not in other  # of an image
        for number, lefts in enumerate([range(5, 11), range(70, 64, -1)], 1):
            assert [p['bbox'][0] for p in people
                    if p['track_id'] == number] == list(lefts)
        found[name] = np.array([p['keypoints'] for p in people])
    raw, smoothed = found['raw'], found['smooth']
    assert (raw[:2] == smoothed[:2]).all()  # of the first frame
    assert (raw[:, 2::3] == smoothed[:, 2::3]).all()  # scores
    for i in (0, 1):
        assert np.ptp(smoothed[:, i::3], 0).mean() < np.ptp(
            raw[:, i::3], 0).mean()


def test_without_a_detector_the_whole_image_is_used_with_a_warning(
        saved, photos, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert run(saved, 'pose', photos / '0.png', '--boxes', 'auto', '--out-dir',
               tmp_path / 'out') == 0
    warning, = (line for line in capfd.readouterr().err.splitlines()
                if line.startswith('warning: '))
    assert 'while downloads are forbidden' in warning
    assert 'using the whole image' in warning
    assert len(read(tmp_path / 'out/predictions.json')) == 1
    with pytest.warns(UserWarning, match='downloads are forbidden'):
        load_predictor(*saved['pose'], device='cpu')


class Camera:
    """In place of OpenCV's, one that never ends."""

    def __init__(self, number):
        assert number == 1
        self.frames = 0

    def isOpened(self):
        return True

    def get(self, what):
        return 0.

    def read(self):
        self.frames += 1
        return True, smooth(self.frames)

    def release(self):
        pass


def test_camera_frames_are_not_read_ahead(saved, monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    source = inputs.Source('webcam:1', 'webcam', 'camera')
    frames = inputs.clip_frames(source, None)
    found = load_predictor(*saved['cls'], device='cpu').run(frames)
    assert [next(found)[0].index for _ in range(3)] == [0, 1, 2]
    assert next(frames).index == 3  # none was read ahead
    run(saved, 'cls', 'webcam:1', '--max-frames', 5, '--out-dir', tmp_path)
    assert len(read(tmp_path / 'predictions.json')) == 5
    monkeypatch.undo()
    frames = inputs.captured(
        cv2.VideoCapture(str(tmp_path / 'overlays/webcam.mp4')))
    assert len(list(frames)) == 5


def test_inputs_are_found_once_and_results_are_ignored(photos, video,
                                                       tmp_path):
    (tmp_path / 'a/b').mkdir(parents=True)
    for place in ('a/b/0.png', 'a/1.png'):
        cv2.imwrite(str(tmp_path / place), smooth(0))
    missing = []
    found = inputs.find_sources(
        [str(tmp_path), str(tmp_path / '**/*.png'), str(photos / '0.png'),
         str(photos / '1.png'), 'webcam', video, str(tmp_path / 'a/1.png')],
        missing.append, tmp_path / 'out')
    assert [(s.name, s.kind) for s in found] == [
        ('a/1', 'image'), ('a/b/0', 'image'), ('0', 'image'), ('1', 'image'),
        ('webcam', 'camera'), ('clip', 'video')]
    again = inputs.find_sources([str(photos / '0.png'),
                                 str(tmp_path / 'a/b/0.png')],
                                missing.append, tmp_path / 'out')
    assert [s.name for s in again] == ['0', '0_2']
    cameras = inputs.find_sources(['webcam', 'webcam:1', 'webcam:0'],
                                  missing.append, tmp_path / 'out')
    assert [s.name for s in cameras] == ['webcam', 'webcam_2']
    hidden = inputs.find_sources([str(tmp_path)], missing.append,
                                 tmp_path / 'a')
    assert hidden == [] and len(missing) == 1


# Files are whole, and nothing is overwritten


def test_nothing_is_overwritten_without_force(saved, photos, tmp_path,
                                              capsys):
    (tmp_path / 'overlays').mkdir()
    (tmp_path / 'overlays/2.png').write_text('mine')
    line = error_of(main, arguments(saved['cls'], photos, '--out-dir',
                                    tmp_path), capsys)
    assert 'overlays/2.png is already there; --force' in line
    assert names(tmp_path) == {'overlays/2.png'}
    assert run(saved, 'cls', photos, '--out-dir', tmp_path,
               '--no-overlay') == 0
    assert 'predictions.json is already there' in error_of(
        main, arguments(saved['cls'], photos, '--out-dir', tmp_path,
                        '--no-overlay'), capsys)
    assert run(saved, 'cls', photos, '--out-dir', tmp_path, '--force') == 0
    assert cv2.imread(str(tmp_path / 'overlays/2.png')) is not None


def test_an_input_is_never_overwritten(saved, tmp_path, capsys):
    (tmp_path / 'overlays').mkdir()
    path = tmp_path / 'overlays/a.png'
    cv2.imwrite(str(path), smooth(0))
    before = path.read_bytes()
    assert 'is an input' in error_of(
        main, arguments(saved['cls'], path, '--out-dir', tmp_path, '--force'),
        capsys)
    assert path.read_bytes() == before


def test_a_failed_video_leaves_no_partial_file_and_keeps_other_results(
        saved, video, tmp_path, monkeypatch):
    from hrformer_mm.apis import outputs
    opened = outputs.open_video

    @contextmanager
    def fail_late(path):
        with opened(path) as write:
            frames = []

            def once(image, fps):
                frames.append(image)
                if len(frames) > 2:
                    raise OSError('no space left')
                write(image, fps)

            yield once

    monkeypatch.setattr(outputs, 'open_video', fail_late)
    outcome = predict(*saved['cls'], [video], tmp_path, device='cpu')
    assert names(tmp_path) == {'predictions.json'}
    assert len(read(tmp_path / 'predictions.json')) == 6
    assert len(outcome.failed) == 1 and 'no space left' in outcome.failed[0]


@pytest.mark.parametrize('done, recorded', [(6, 2), (4, 0), (2, 0)])
def test_stopping_keeps_finished_results(saved, photos, video, tmp_path,
                                         monkeypatch, done, recorded):
    draw, frames = ClsPredictor.draw, []

    def stop(self, frame, found):
        frames.append(frame)
        if len(frames) > done:
            raise KeyboardInterrupt
        return draw(self, frame, found)

    monkeypatch.setattr(ClsPredictor, 'draw', stop)
    outcome = predict(*saved['cls'], [str(photos), video, str(photos)],
                      tmp_path, device='cpu')
    assert outcome.stopped and outcome.frames == done
    assert len(read(tmp_path / 'predictions.json')) == done
    assert names(tmp_path) == {
        'predictions.json', *(f'overlays/{i}.png' for i in range(4)[:done]),
        *['overlays/clip.mp4'][:recorded]}  # yapf: disable
    clip = cv2.VideoCapture(str(tmp_path / 'overlays/clip.mp4'))
    assert len(list(inputs.captured(clip))) == recorded


# The command


def test_the_progress_bar_shows_the_throughput():
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with make_progress(console) as progress:
        bar = progress.add_task('predicting', total=4)
        for _ in range(4):
            progress.advance(bar)
    text = screen.getvalue()
    assert '4/4' in text and 'images/s' in text


@pytest.mark.parametrize('args, words', [
    (['nowhere.jpg'], 'nowhere.jpg does not exist'),
    (['{0}', '--device', 'cuda:7'], "device 'cuda:7' is not available"),
    (['{0}', '--boxes', 'whole'], '--boxes, --box-thr, --box-categories'),
    (['{0}', '--show'], '--show needs a screen'),
])
def test_an_error_is_one_line(saved, photos, tmp_path, capsys, monkeypatch,
                              args, words):
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    args = [arg.format(photos) for arg in args]
    line = error_of(main, arguments(saved['seg'], *args, '--out-dir',
                                    tmp_path / 'out'), capsys)
    assert words in line
    assert not (tmp_path / 'out').exists()


def test_weights_must_match_the_model(saved, photos, tmp_path, capsys):

    def refusal(weights):
        return error_of(main, arguments((config, str(weights)), photos,
                                        '--out-dir', tmp_path / 'out'), capsys)

    config, weights = saved['pose']
    tensors = torch.load(weights)['state_dict']
    path = tmp_path / 'backbone.pth'
    torch.save({k: v for k, v in tensors.items() if 'head' not in k}, path)
    line = refusal(path)
    assert 'lacks 2 of the tensors' in line and 'head.final_layer' in line
    tensors['head.final_layer.bias'] = torch.zeros(5)
    torch.save(tensors, path)
    assert 'is of another config' in refusal(path)
    assert 'no checkpoint at' in refusal(tmp_path / 'no.pth')


def test_the_command_is_installed_under_its_name():
    cfg = ConfigParser()
    cfg.read(ROOT / 'setup.cfg')
    lines = cfg['options.entry_points']['console_scripts'].split('\n')
    assert 'hrformer-mm = hrformer_mm.__main__:main' in lines


@pytest.mark.slow
def test_help_is_printed_from_the_shell():
    for command in ([], ['predict']):
        text = subprocess.check_output(
            [sys.executable, '-m', 'hrformer_mm', *command, '--help'],
            text=True, cwd=ROOT)
        assert 'predict' in text
    assert 'webcam --show' in text and '--boxes WHERE' in text
