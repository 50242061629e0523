# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""People are found by a detector of torchvision, fetched when needed."""
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from predicting import smooth
from torchvision.models import get_model

from hrformer_mm.apis import boxes, detector, inputs
from hrformer_mm.apis.categories import Categories
from hrformer_mm.checkpoints import files
from hrformer_mm.utils.cli import OFFLINE

SMALL = 'ssdlite320_mobilenet_v3_large'
FRAME = inputs.Frame(inputs.Source('0', '0', 'image'), smooth(0))


class Quiet(SimpleHTTPRequestHandler):

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def release(tmp_path_factory):
    """A folder with random weights of a detector; their hash is in the name.
    """
    folder = tmp_path_factory.mktemp('release')
    model = get_model(SMALL, weights=None, weights_backbone=None)
    torch.save(model.state_dict(), folder / 'x.pth')
    digits = hashlib.sha256((folder / 'x.pth').read_bytes()).hexdigest()
    return (folder / 'x.pth').rename(folder / f'ssd-{digits[:8]}.pth')


@pytest.fixture
def server(release, monkeypatch, tmp_path):
    """Serves the file, at the URL that torchvision is made to state."""
    monkeypatch.setenv(OFFLINE, '0')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv(files.WEIGHTS, raising=False)
    monkeypatch.delenv(files.MIRROR, raising=False)
    monkeypatch.chdir(tmp_path)

    def handle(*args):
        server.requests += 1
        return Quiet(*args, directory=release.parent)

    with ThreadingHTTPServer(('127.0.0.1', 0), handle) as server:
        server.requests = 0
        server.url = f'http://127.0.0.1:{server.server_port}/{release.name}'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(detector, 'weights_url', lambda name: server.url)
        monkeypatch.setattr(detector, 'DETECTOR', SMALL)
        yield server
        server.shutdown()


def test_the_weights_are_downloaded_once_with_one_notice(server, capfd,
                                                         tmp_path, release):
    for _ in range(2):
        found = detector.choose_boxes('auto', 'cpu', .5)
        assert found.words == SMALL and not found.problem
    assert server.requests == 1
    assert (tmp_path / 'torch/hub/checkpoints' / release.name).is_file()
    assert capfd.readouterr().err.count('downloading') == 1


def test_boxes_of_people_above_the_threshold_are_returned(server,
                                                          monkeypatch):
    found = detector.choose_boxes('detector', 'cpu', .5)
    assert found(FRAME).corners.shape[1] == 4
    answer = dict(boxes=torch.tensor([[1., 2, 3, 5], [4., 4, 9, 9],
                                      [5., 5, 8, 8]]),
                  labels=torch.tensor([1, 2, 1]),
                  scores=torch.tensor([.9, .9, .2]))
    monkeypatch.setattr(found, 'model', lambda images: [answer])
    assert found(FRAME).corners.tolist() == [[1, 2, 3, 5]]
    assert found(FRAME).scores.tolist() == pytest.approx([.9])


@pytest.mark.parametrize('fault, words', [
    ('offline', 'while downloads are forbidden'), ('gone', 'cannot be down'),
    ('hash', 'is damaged')])
def test_without_weights_the_whole_image_is_used_with_a_warning(
        server, monkeypatch, fault, words):
    if fault == 'offline':
        monkeypatch.setenv(OFFLINE, '1')
    elif fault == 'gone':
        server.url = server.url.replace('ssd-', 'other-')
    else:
        monkeypatch.setattr(files, 'hash_of', lambda name: '0' * 64)
    found = detector.choose_boxes('auto', 'cpu', .5)
    assert type(found) is boxes.WholeImage
    assert words in found.problem and 'using the whole image' in found.problem
    with pytest.raises((FileNotFoundError, ValueError), match=words):
        detector.choose_boxes('detector', 'cpu', .5)


def test_a_model_of_other_objects_uses_the_whole_image_with_a_warning(server):
    hands = Categories([dict(id=1, name='hand')])
    found = detector.choose_boxes('auto', 'cpu', .5, hands)
    assert type(found) is boxes.WholeImage
    assert 'not the classes of this' in found.problem
    assert server.requests == 0


def test_a_category_that_detectors_lack_is_an_error(server):
    wish = Categories([dict(id=1, name='hand')], chosen=['hand'])
    with pytest.raises(ValueError, match='hand: the boxes have'):
        detector.choose_boxes('auto', 'cpu', .5, wish)


def test_another_detector_is_chosen_by_name(monkeypatch, release, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    name = detector.weights_url(SMALL).rpartition('/')[2]
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    (tmp_path / 'hub/checkpoints' / name).symlink_to(release)
    found = detector.choose_boxes('auto', 'cpu', .5, detector=SMALL)
    assert found.words == SMALL


@pytest.mark.parametrize('word, name, words', [
    ('auto', 'fasterrcnn_resnet50_fpn_v3', "mean 'fasterrcnn_resnet50_fpn"),
    ('auto', 'yolo', 'has no detector .yolo.*fcos_resnet50_fpn'),
    ('auto', 'my/detector.py', 'needs its weights: --detector my/d.* WEIGHTS'),
    ('auto', 'hrformer_t_coco_800x1333_fcos', 'needs its weights'),
    ('whole', ('a.py', 'b.pth'), '--detector a.py b.pth is not used'),
    ('whole', SMALL, 'is not used with --boxes whole'),
    ('boxes.json', SMALL, 'is not used with --boxes boxes.json')])
def test_a_wrong_detector_is_an_error(word, name, words):
    with pytest.raises(ValueError, match=words):
        detector.choose_boxes(word, 'cpu', .5, detector=name)
