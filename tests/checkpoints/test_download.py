# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Downloads from a local server arrive whole, once, and with their hash."""
import hashlib
import multiprocessing
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import foreign
import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from hrformer_mm.checkpoints import (
    download,
    files,
    loading,
    schemes,
    weights_index,
)
from hrformer_mm.checkpoints.files import find_file
from hrformer_mm.models.backbones import HRFormer
from hrformer_mm.utils.cli import OFFLINE

CONTENT = bytes(range(256)) * 4000  # 1 MB
NAME = f'x-{hashlib.sha256(CONTENT).hexdigest()[:8]}_20220226.pth'


class Handler(BaseHTTPRequestHandler):
    """Send the server's content in the way that the path asks for.

    ``/cut/`` ends the first connections after 400 kB and ``/often/`` each
    after 150 kB, ``/plain/`` ignores ranges, ``/bare/`` does not state the
    size, ``/trickle/`` sends a piece at a time, ``/stall/`` stops after
    300 kB, ``/other/`` sends another range, ``/moved/`` redirects, ``/gone/``
    has nothing, ``/broken/`` fails twice, ``/wrong/`` has another file.
    """

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get('Range')))
        way, name = self.path.split('/')[1:]
        if way == 'moved':
            self.send_response(302)
            self.send_header('Location', f'/whole/{name}')
            return self.end_headers()
        if way == 'gone':
            return self.send_error(404)
        if way == 'broken' and len(self.server.requests) < 3:
            return self.send_error(503)
        content = self.server.content
        start, asked = 0, self.headers.get('Range')
        if asked and way != 'plain':
            start = int(re.findall(r'\d+', asked)[0])
            if start >= len(content):
                return self.send_error(416)
        rest = b'another file' if way == 'wrong' else content[start:]
        self.send_response(206 if asked and way != 'plain' else 200)
        if way != 'bare':
            self.send_header('Content-Length', str(len(rest)))
        if way == 'other':
            self.send_header('Content-Range', 'bytes 7-8/9')
        self.end_headers()
        self.send_slowly(way, rest)

    def send_slowly(self, way, rest):
        is_early = len(self.server.requests) < 3
        if way == 'trickle':
            for i in range(0, len(rest), 50_000):
                self.wfile.write(rest[i:i + 50_000])
                self.server.released.wait(.03)
        elif way == 'stall':
            self.wfile.write(rest[:300_000] if len(
                self.server.requests) == 1 else b'')
            self.server.released.wait(30)
        elif way == 'often' or way in ('cut', 'plain') and is_early:
            self.wfile.write(rest[:150_000 if way == 'often' else 400_000])
        else:
            self.wfile.write(rest)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv(OFFLINE, '0')
    monkeypatch.setattr(download.time, 'sleep', lambda seconds: None)
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.requests, server.content = [], CONTENT
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f'http://127.0.0.1:{server.server_port}'
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of downloads, and a working directory without weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.WEIGHTS, str(tmp_path / 'own'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.delenv(files.MIRROR, raising=False)
    return tmp_path / 'own'


def release(monkeypatch, *entries):
    """Replace the released weights, by those with some fields."""
    known = weights_index.list_weights()[0]
    entries = [replace(known, **entry) for entry in entries]
    monkeypatch.setattr(weights_index, 'list_weights', lambda: entries)


@pytest.mark.parametrize('way', ['whole', 'cut', 'often', 'plain', 'bare',
                                 'trickle', 'moved', 'broken'])
def test_a_file_arrives_whole_however_the_server_behaves(
        way, server, tmp_path, capfd):
    path = tmp_path / 'weights' / NAME
    assert download.download(f'{server.url}/{way}/{NAME}', path)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()
            if not p.name.endswith('.lock')] == [NAME]
    assert 'downloading' in capfd.readouterr().err
    if way == 'cut':
        assert [asked for _, asked in server.requests] == [
            None, 'bytes=400000-', 'bytes=800000-']
    if way == 'often':
        assert len(server.requests) == 7 > download.ATTEMPTS


def test_a_partial_file_of_a_killed_process_is_continued(server, tmp_path):
    (tmp_path / f'.{NAME}.part').write_bytes(CONTENT[:900_000])
    assert download.download(f'{server.url}/whole/{NAME}', tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.requests[0][1] == 'bytes=900000-'


def test_a_partial_file_of_another_version_is_started_again(server, tmp_path):
    (tmp_path / f'.{NAME}.part').write_bytes(CONTENT * 2)
    assert download.download(f'{server.url}/whole/{NAME}', tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_missing_file_is_reported_and_leaves_nothing(server, tmp_path,
                                                       capfd):
    assert not download.download(f'{server.url}/gone/{NAME}', tmp_path / NAME)
    assert '404' in capfd.readouterr().err and len(server.requests) == 1
    assert not (tmp_path / NAME).exists()


def test_a_stalled_server_is_left_and_the_next_call_continues(
        server, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(download, 'TIMEOUT', .3)
    path = tmp_path / NAME
    assert not download.download(f'{server.url}/stall/{NAME}', path)
    line = capfd.readouterr().err.splitlines()[-1]
    assert 'no data for 0.3 s; 0.3 MB were received' in line
    assert not path.exists()
    assert len(server.requests) == 1 + download.ATTEMPTS
    monkeypatch.setattr(download, 'TIMEOUT', 60)
    assert download.download(f'{server.url}/whole/{NAME}', path)
    assert server.requests[-1][1] == 'bytes=300000-'
    assert path.read_bytes() == CONTENT


def test_another_range_than_asked_for_is_not_appended(server, tmp_path, capfd):
    (tmp_path / f'.{NAME}.part').write_bytes(CONTENT[:900_000])
    assert not download.download(f'{server.url}/other/{NAME}', tmp_path / NAME)
    assert 'sent bytes 7-8/9' in capfd.readouterr().err
    assert not (tmp_path / NAME).exists()


def test_a_server_that_is_not_there_is_reported(tmp_path, capfd, server):
    assert not download.download(f'http://127.0.0.1:9/{NAME}', tmp_path / NAME)
    assert f'cannot download http://127.0.0.1:9/{NAME}: ' in (
        capfd.readouterr().err)


def test_a_file_with_a_wrong_hash_is_refused(server, tmp_path):
    name = 'x-00000000_20220226.pth'
    for _ in range(2):
        with pytest.raises(ValueError, match='damaged'):
            download.download(f'{server.url}/whole/{name}', tmp_path / name)
        assert all(p.suffix == '.lock' for p in tmp_path.iterdir())


@pytest.mark.parametrize('digits', ['0' * 8, '0' * 64])
def test_the_hash_of_the_catalogue_is_checked(server, folder, monkeypatch,
                                              digits):
    right = hashlib.sha256(CONTENT).hexdigest()
    entry = dict(file='any.pth', url=f'{server.url}/whole/any.pth')
    release(monkeypatch, dict(entry, sha256=digits))
    with pytest.raises(ValueError, match=f'damaged.*{right[:8]}'):
        find_file('any.pth')
    assert not (folder / 'any.pth').exists()
    release(monkeypatch, dict(entry, sha256=right[:len(digits)].upper()))
    assert find_file('any.pth').read_bytes() == CONTENT


@pytest.mark.parametrize('way', ['gone', 'wrong'])
def test_the_release_is_used_if_the_mirror_lacks_the_file(server, folder,
                                                          monkeypatch, way):
    release(monkeypatch, dict(file=NAME, url=f'{server.url}/whole/{NAME}'))
    monkeypatch.setenv(files.MIRROR, f'{server.url}/{way}/')
    assert find_file(NAME).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [
        f'/{way}/{NAME}', f'/whole/{NAME}']


def test_offline_nothing_is_asked_for(server, tmp_path, monkeypatch):
    monkeypatch.setenv(OFFLINE, '1')
    assert not download.download(f'{server.url}/whole/{NAME}', tmp_path / 'x')
    assert not server.requests


def test_two_processes_download_a_file_once(server, tmp_path):
    args = (f'{server.url}/whole/{NAME}', tmp_path / NAME)
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=download.download, args=args)
                 for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(server.requests) == 1
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_url_is_downloaded_into_our_folder_and_then_found_there(
        server, folder):
    url = f'{server.url}/whole/{NAME}'
    assert find_file(url) == folder / NAME == find_file(NAME)
    assert len(server.requests) == 1


def test_downloads_go_to_the_folder_of_torch_hub_by_default(
        tmp_path, monkeypatch):
    monkeypatch.delenv(files.WEIGHTS, raising=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert files.cache_folder() == tmp_path / 'hub' / 'checkpoints'


def test_files_of_torch_hub_are_found_beside_those_of_our_folder(folder,
                                                                 tmp_path):
    place = tmp_path / 'torch' / 'hub' / 'checkpoints'
    place.mkdir(parents=True)
    (place / 'x.pth').write_bytes(b'x')
    assert find_file('x.pth') == place / 'x.pth'


def test_a_load_from_with_a_url_is_downloaded_like_the_others(server, folder):
    content = BytesIO()
    torch.save(dict(state_dict=dict(a=torch.ones(2))), content)
    server.content = content.getvalue()
    for _ in range(2):
        with schemes.protected_loading():
            loaded = CheckpointLoader.load_checkpoint(
                f'{server.url}/whole/x.pth', map_location='cpu')
        assert loaded['state_dict']['a'].sum() == 2
    assert (folder / 'x.pth').is_file() and len(server.requests) == 1


SHALLOW = replace(foreign.TINY, modules=(1, 1, 1), blocks=1)


def test_weights_of_a_model_are_loaded_by_url_and_by_name(server, folder):
    model, content = torch.nn.Linear(2, 2), BytesIO()
    torch.save(dict(state_dict=model.state_dict()), content)
    server.content = content.getvalue()
    for path in (f'{server.url}/whole/x.pth', 'x.pth', folder / 'x.pth'):
        other = torch.nn.Linear(2, 2)
        loading.load_weights(other, path)
        assert torch.equal(other.weight, model.weight)
    assert len(server.requests) == 1
    for path in ('y.pth', 'elsewhere/x.pth'):  # a path is not a name
        with pytest.raises(FileNotFoundError, match=f'checkpoint at {path}'):
            loading.load_weights(model, path)


def total(model):
    return sum(v.double().sum().item() for v in model.state_dict().values())


def start_training(rank, folder, results):
    """Build a backbone as each process of a distributed run does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', f'file://{folder}/meeting', rank=rank, world_size=2)
    said = []
    files.print_log = lambda text, logger: said.append(text)
    init = dict(type='Pretrained', checkpoint='hrt_small.pth')
    backbone = HRFormer(SHALLOW, init_cfg=init)
    backbone.init_weights()
    results.put((total(backbone), said))
    torch.distributed.barrier()


def test_all_processes_of_a_training_start_from_one_download_of_mmposes_file(
        server, folder, tmp_path, monkeypatch):
    model = HRFormer(SHALLOW)
    content = BytesIO()
    torch.save(dict(state_dict=model.state_dict()), content)
    server.content = content.getvalue()
    digits = hashlib.sha256(server.content).hexdigest()[:8]
    name = f'hrformer_small-{digits}_20220226.pth'
    official = dict(file='hrt_small.pth', layout='official-cls', arch='small',
                    url='https://x.invalid/page')
    release(monkeypatch, official, dict(
        file=name, layout='mmpose', arch='small', backbone=True,
        url=f'{server.url}/trickle/{name}'))
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [context.Process(target=start_training, args=(
        rank, tmp_path, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    for value, (line, ) in found:
        assert value == total(model)
        assert line.startswith('hrt_small.pth was not found; using') and (
            name in line)
    assert len(server.requests) == 1
