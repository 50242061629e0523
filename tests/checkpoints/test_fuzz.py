# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""A thousand damaged checkpoints and images through the loaders.

Nothing in a file is run, nothing hangs, and a model either has all of a file
or is as it was before.
"""
import io
import json
import os
import pickle
import random
import signal
import sys
import zipfile
from collections import Counter
from contextlib import contextmanager

import cv2
import foreign
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.runner import load_checkpoint
from predicting import smooth
from torch import nn

from hrformer_mm.apis.inputs import Source, read_frames
from hrformer_mm.apis.predictor import Predictor
from hrformer_mm.checkpoints import (
    load_pretrained,
    read_checkpoint,
    write_checkpoint,
)
from hrformer_mm.checkpoints.convert import convert
from hrformer_mm.checkpoints.schemes import protected_loading
from hrformer_mm.engine.hooks.resuming import SeededFetch
from hrformer_mm.models.backbones import HRFormer

LONGEST = 20  # seconds for one file; longer is a hang
# What code in a file would do; none of it belongs to reading.
FORBIDDEN = ('os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'os.mkdir',
             'os.remove', 'os.rename', 'subprocess.', 'socket.', 'shutil.',
             'pickle.find_class')
FEW = pytest.param(0, 60, id='few')
MANY = pytest.param(60, 500, id='many', marks=pytest.mark.slow)


class Watch:
    """Notes forbidden events while it is on; hooks of Python's stay."""

    def __init__(self):
        self.is_on, self.events = False, []
        sys.addaudithook(self.note)

    def note(self, event, arguments):
        if self.is_on and event.startswith(FORBIDDEN):
            self.events.append((event, arguments))


WATCH = Watch()


class Hang(BaseException):
    """Passes all that handles errors."""


def give_up(*_):
    raise Hang(f'a file took more than {LONGEST} s')


@contextmanager
def reading():
    """While this lasts, nothing may be run and little time may pass."""
    former = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST)
    WATCH.events, WATCH.is_on = [], True
    try:
        yield
    finally:
        WATCH.is_on = False
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
    assert WATCH.events == []


# Ways to damage any file


def flip(content, rng):
    content = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def cut(content, rng):
    return content[:rng.randrange(len(content))]


def splice(content, rng):
    """A piece is repeated, moved onto another, or left out."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    b, at = min(b, a + 4096), rng.randrange(len(content))
    behind = at + (b - a) * rng.randrange(2)
    return rng.choice([
        content[:at] + content[a:b] + content[behind:],
        content[:a] + content[b:]
    ])


def head(content, rng):
    """Bytes near the beginning, where formats say what they are."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(min(len(content), 200))] = rng.randrange(256)
    return bytes(content)


ANY = (flip, cut, splice, head)


# Ways to damage an archive of PyTorch's, or a file of safetensors


def rezip(content, change):
    """The archive with its parts changed, its checksums right."""
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        parts = {n: source.read(n) for n in source.namelist()}
    target = io.BytesIO()
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_STORED) as archive:
        for name, part in change(parts).items():
            archive.writestr(name, part)
    return target.getvalue()


def zip_header(content, rng):
    """Numbers in the entries of the archive: sizes, methods, places."""
    content = bytearray(content)
    places = [i for i in range(len(content) - 46)
              if content[i:i + 2] == b'PK']
    for _ in range(rng.randint(1, 3)):
        content[rng.choice(places) + rng.randrange(46)] = rng.randrange(256)
    return bytes(content)


def zip_pickle(content, rng):
    """The pickle is another one, which all checksums fit."""
    damage = rng.choice([flip, splice, cut])
    return rezip(content, lambda parts: {
        n: damage(p, rng) if n.endswith('data.pkl') else p
        for n, p in parts.items()})


def zip_parts(content, rng):
    """Memory of tensors is missing, short or swapped."""

    def change(parts):
        names = [n for n in parts if '/data/' in n]
        a, b = rng.sample(names, 2)
        way = rng.randrange(3)
        if way == 0:
            del parts[a]
        elif way == 1:
            parts[a] = parts[a][:rng.randrange(len(parts[a]))]
        else:
            parts[a], parts[b] = parts[b], parts[a]
        return parts

    return rezip(content, change)


class Evil:
    """Unpickles to a new folder."""

    def __reduce__(self):
        return os.mkdir, ('trap', )


def zip_code(content, rng):
    """The pickle would run code; in some files it is damaged, too."""
    evil = pickle.dumps(dict(state_dict={}, meta=Evil()), protocol=2)
    evil = flip(evil, rng) if rng.randrange(2) else evil
    return rezip(content, lambda parts: {
        n: evil if n.endswith('data.pkl') else p for n, p in parts.items()})


def json_header(content, rng):
    """Types, shapes and places in the header of a safetensors file."""
    size = int.from_bytes(content[:8], 'little')
    header = json.loads(content[8:8 + size])
    entry = header[rng.choice([n for n in header if n != '__metadata__'])]
    key = rng.choice(['dtype', 'shape', 'data_offsets'])
    entry[key] = rng.choice([
        rng.choice(['I32', 'F64', 'F4', '']), [], [-1], [2**40, 2**40],
        [0, 0], [rng.randrange(99)] * rng.randint(1, 5), None])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + content[8 + size:]


DAMAGES = {'.pth': (*ANY, zip_header, zip_pickle, zip_parts, zip_code),
           '.safetensors': (*ANY, json_header)}


def damaged(sound, number):
    """Name of the format and of the damage, and the damaged bytes."""
    rng = random.Random(number)
    suffix = rng.choice(sorted(sound))
    damage = rng.choice(DAMAGES.get(suffix, ANY))
    return suffix, damage.__name__, damage(sound[suffix], rng)


def one_line(error):
    assert '\n' not in str(error) and len(str(error)) < 1000, error


# Checkpoints


@pytest.fixture(scope='module')
def model():
    """An owner of a backbone, as the frameworks have."""
    model = nn.Module()
    model.backbone = HRFormer(foreign.TINY, out_indices=(0, 1, 2, 3))
    return model


@pytest.fixture(scope='module')
def checkpoints(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp('sound')
    state = {k: torch.randn_like(v) if v.is_floating_point() else v.clone()
             for k, v in model.state_dict().items()}
    sound = {}
    for suffix in ('.pth', '.safetensors'):
        path = folder / f'x{suffix}'
        write_checkpoint(dict(state_dict=state, meta=dict(epoch=3)), path)
        sound[suffix] = path.read_bytes()
        for load in (through_pretrained, through_owner):
            load(model, path)  # imports all that reading needs
            assert bits(model) == {
                k: v.numpy().tobytes() for k, v in state.items()}
    return sound


def bits(model):
    return {k: v.numpy().tobytes() for k, v in model.state_dict().items()}


def through_pretrained(model, path):
    load_pretrained(model.backbone, path)


def through_owner(model, path):
    load_checkpoint(model, str(path), 'cpu')


def assert_all_is_there(model, path):
    """Each tensor of the model has the values of the file."""
    tensors, _ = convert(read_checkpoint(path))
    for name, own in model.state_dict().items():
        if name in tensors or not name.endswith('num_batches_tracked'):
            expected = torch.empty_like(own).copy_(tensors[name])
            assert expected.numpy().tobytes() == own.numpy().tobytes(), name


def load_damaged(model, sound, number, folder):
    """Load one damaged checkpoint and return what happened."""
    suffix, damage, content = damaged(sound, number)
    path = folder / f'{number}{suffix}'
    path.write_bytes(content)
    load = (through_pretrained, through_owner)[number % 2]
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    before = bits(model)
    try:
        # As our commands read; mmengine alone passes on PyTorch's errors.
        with protected_loading(), reading():
            load(model, path)
    except (ValueError, RuntimeError) as error:
        one_line(error)
        assert bits(model) == before, (damage, 'half loaded')
        return f'{damage}: refused'
    finally:
        assert not os.path.exists('trap'), damage
    assert damage != 'zip_code'
    assert_all_is_there(model, path)
    path.unlink()
    return f'{damage}: loaded'


@pytest.mark.parametrize('first, last', [FEW, MANY])
@pytest.mark.filterwarnings('ignore')
def test_damaged_checkpoints_are_rejected_or_loaded_whole(
        first, last, model, checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes = Counter(load_damaged(model, checkpoints, i, tmp_path)
                       for i in range(first, last))
    print(dict(sorted(outcomes.items())))
    refused = sum(v for k, v in outcomes.items() if 'refused' in k)
    assert outcomes.total() == last - first
    assert refused > .6 * outcomes.total()
    assert not outcomes['cut: loaded']


def test_a_file_that_runs_code_is_detected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError), reading():
        pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / 'trap').exists()


# Images


class Photos(BaseDataset):
    """Files, read as the frameworks' pipelines do it."""

    def __init__(self, paths):
        super().__init__(lazy_init=True, serialize_data=False,
                         pipeline=[LoadImageFromFile()])
        self.data_list = [dict(img_path=str(p)) for p in paths]
        self._fully_initialized = True


@pytest.fixture(scope='module')
def images():
    """Bytes of sound images, by ending."""
    image = smooth(0)
    formats = {'.jpg': image, '.png': image, '.16.png': image.astype('u2'),
               '.grey.png': image[..., 0]}
    return {k: cv2.imencode(k, v)[1].tobytes() for k, v in formats.items()}


def look_at(path, damage):
    """Read one damaged image with both readers and compare what happens."""
    reader, reported = Predictor.__new__(Predictor), []
    reader.load = LoadImageFromFile()
    with reading():
        frames = list(read_frames([Source(str(path), 'x', 'image')],
                                  reader.read, reported.append, None))
    fetch = SeededFetch(Photos([path]), 0)
    try:
        with reading():
            image = fetch.fetch(0, 0, 0)['img']
    except ValueError as error:
        one_line(error)
        assert path.name in str(error)
        (line, ) = reported
        one_line(line)
        assert path.name in line and not frames
        return f'{damage}: refused'
    if reported:  # Pillow is stricter with parts that OpenCV leaves out
        (line, ) = reported
        one_line(line)
        assert path.name in line and not frames
        return f'{damage}: read in training, skipped in prediction'
    assert np.array_equal(frames[0].image, image)
    assert image.dtype == np.uint8 and image.ndim == 3
    assert image.shape[2] == 3 and image.size > 0
    return f'{damage}: read'


@pytest.mark.parametrize('first, last', [FEW, MANY])
def test_damaged_images_are_rejected_or_read(first, last, images, tmp_path):
    outcomes = Counter()
    for number in range(first, last):
        suffix, damage, content = damaged(images, number)
        path = tmp_path / f'{number}{suffix}'
        path.write_bytes(content)
        outcomes[look_at(path, damage)] += 1
        path.unlink()
    print(dict(sorted(outcomes.items())))
    assert outcomes.total() == last - first
    assert len({k.rpartition(': ')[2] for k in outcomes}) >= 2
