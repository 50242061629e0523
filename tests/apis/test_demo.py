# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The demo page: what it shows, and the page in a browser."""
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from predicting import smooth, write_config, write_video

from hrformer_mm.__main__ import main
from hrformer_mm.apis import demo as module
from hrformer_mm.apis import load_predictor

CHROMIUM = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome'))), None)  # yapf: disable
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic',
         '--disable-background-networking', '--disable-component-update',
         '--disable-sync', '--no-first-run']  # yapf: disable
ONE_TASK = pytest.mark.parametrize('demo', ['seg'], indirect=True)


@pytest.fixture(scope='module', params=['pose', 'seg', 'cls'])
def demo(request, tmp_path_factory):
    task = request.param
    folder = tmp_path_factory.mktemp(task)
    options = dict(boxes='whole') if task == 'pose' else {}
    predictor = load_predictor(
        *write_config(task, folder), device='cpu', **options)
    return module.Demo(predictor, task, task, module.Limits(seconds=.25))


def image_file(folder: Path) -> str:
    path = folder / 'one photo.png'
    cv2.imwrite(str(path), smooth(0))
    return str(path)


def test_image_is_shown_with_bars_and_files(demo, tmp_path):
    shown = demo.run(image_file(tmp_path), 0.)
    assert shown.image.ndim == 3 and shown.video is None
    assert shown.text == 'one photo.png: 120 x 100 pixels'
    assert shown.details.count('class="bar"') >= 1
    names = {Path(file).name for file in shown.files}
    assert names == dict(
        pose={'predictions.json', 'images.json'}, cls={'predictions.json'},
        seg={'predictions.json', 'one photo.png'})[demo.task]
    content = Path(shown.files[0]).read_text()
    assert json.loads(content) and str(tmp_path) not in content


def test_threshold_redraws_without_the_model(demo, tmp_path, monkeypatch):
    shown = demo.run(image_file(tmp_path), 0.)
    monkeypatch.setattr(demo.predictor, 'forward', None)
    hidden = demo.redraw(shown.kept, 1.)
    assert hidden.image.shape == shown.image.shape
    if demo.task != 'cls':  # which writes the classes below the image
        assert not np.array_equal(hidden.image, shown.image)
        plain = smooth(0)[..., ::-1]
        assert np.array_equal(hidden.image, plain)
    if demo.task != 'pose':
        assert 'No class reaches' in hidden.details


def test_start_of_a_video_is_shown_as_a_video(demo, tmp_path):
    shares = []
    video = write_video(tmp_path / 'clip.mp4', frames=6)
    shown = demo.run(str(video), 0., shares.append)
    assert 'Only the first 0.2 s' in shown.text or '0.3 s' in shown.text
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])  # 0.25 s at 12 per s
    capture = cv2.VideoCapture(shown.video)
    frames = iter(lambda: capture.read()[0], False)
    assert len(list(frames)) == 3
    assert Path(shown.video).suffix == '.webm' and shown.kept is None
    assert json.loads(Path(shown.files[0]).read_text())


@ONE_TASK
@pytest.mark.parametrize('name', ['text.jpg', 'broken.mp4', 'huge.png'])
def test_file_that_cannot_be_used_gets_a_message(demo, name, tmp_path,
                                                 monkeypatch):
    path = tmp_path / name
    path.write_text('no image' * 99)
    if name == 'huge.png':
        cv2.imwrite(str(path), np.zeros((80, 80), np.uint8))
        monkeypatch.setattr(module, 'MAX_PIXELS', 80 * 79)
    shown = demo.run(str(path), 0.)
    assert shown.text.startswith('This file cannot be used: ')
    assert name in shown.text and str(tmp_path) not in shown.text
    assert shown.image is None and shown.files == []


@ONE_TASK
def test_files_of_old_runs_are_removed(demo):
    folders = [demo.new_folder() for _ in range(module.HISTORY + 2)]
    assert [f.exists() for f in folders[:3]] == [False, False, True]


def test_names_of_classes_are_escaped():
    assert '<script>' not in module.draw_bars([('<script>', .5, 'red')])


def test_without_gradio_one_line_names_the_install_command(
        monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(SystemExit):
        main(['demo', 'hrformer_s_coco_256x192', 'missing.pth'])
    assert capsys.readouterr().err == (
        'error: the demo needs gradio, which is not installed: pip install '
        "'hrformer-mm[demo]'\n")


def wait_for_address(process: subprocess.Popen, log: Path) -> str:
    """Return the address that a server prints."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r'http://127\.0\.0\.1:\d+', log.read_text())
        if found:
            return found[0]
        time.sleep(.5)
    raise AssertionError(log.read_text())


@pytest.fixture
def address(tmp_path):
    """Serve a small model on a free port."""
    pytest.importorskip('gradio')
    config, weights = write_config('seg', tmp_path)
    log = tmp_path / 'log.txt'
    with log.open('w') as file:
        process = subprocess.Popen(
            [sys.executable, '-u', '-m', 'hrformer_mm', 'demo', config,
             weights, '--device', 'cpu', '--max-seconds', '1', '--max-mb',
             '1'], stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, 'GRADIO_TEMP_DIR': str(tmp_path / 'gradio')}
        )  # yapf: disable
    try:
        yield wait_for_address(process, log)
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_page_in_a_browser(address, tmp_path):
    api = pytest.importorskip('playwright.sync_api')
    photo, video = image_file(tmp_path), write_video(tmp_path / 'clip.mp4')
    broken = tmp_path / 'broken.jpg'
    broken.write_text('no image')
    large = tmp_path / 'large.png'
    large.write_bytes(bytes(2 * 10**6))
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        hosts = set()
        page.on('request', lambda r: hosts.add(r.url.split('/')[2]))
        page.goto(address)
        upload = page.locator('#file input[type=file]')
        upload.set_input_files(photo)
        page.locator('#result img').wait_for()
        api.expect(page.locator('#text')).to_contain_text('120 x 100')
        assert page.locator('#details .bar').count() >= 1
        with page.expect_download() as download:
            page.locator('#files a').first.click()
        assert json.loads(Path(download.value.path()).read_text())
        for path, text in ((broken, 'cannot be used'), (video, '6 frames')):
            page.locator('#file button[aria-label=Clear]').first.click()
            upload.set_input_files(path)
            api.expect(page.locator('#text')).to_contain_text(text)
        played = page.locator('#result video')
        played.wait_for()
        page.wait_for_function(
            'v => v.readyState >= 2', arg=played.element_handle())
        page.locator('#file button[aria-label=Clear]').first.click()
        upload.set_input_files(large)
        page.get_by_text('maximum allowed size').first.wait_for()
        browser.close()
    assert hosts == {address.split('/')[2]}
