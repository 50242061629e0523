# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Downloads from a local server arrive whole, once, and with their hash."""
import hashlib
import multiprocessing
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hrformer_mm.checkpoints import download, files
from hrformer_mm.checkpoints.files import find_file

CONTENT = bytes(range(256)) * 4000  # 1 MB
NAME = f'x-{hashlib.sha256(CONTENT).hexdigest()[:8]}_20220226.pth'


class Handler(BaseHTTPRequestHandler):
    """Send CONTENT in the way that the path asks for.

    ``/cut/`` ends each connection after 400 kB, ``/plain/`` ignores ranges,
    ``/moved/`` redirects, ``/gone/`` has nothing, ``/broken/`` fails twice.
    """

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get('Range')))
        way = self.path.split('/')[1]
        if way == 'moved':
            self.send_response(302)
            self.send_header('Location', f'/whole/{NAME}')
            return self.end_headers()
        if way == 'gone':
            return self.send_error(404)
        if way == 'broken' and len(self.server.requests) < 3:
            return self.send_error(503)
        start, asked = 0, self.headers.get('Range')
        if asked and way != 'plain':
            start = int(re.findall(r'\d+', asked)[0])
            if start >= len(CONTENT):
                return self.send_error(416)
        rest = CONTENT[start:]
        self.send_response(206 if asked and way != 'plain' else 200)
        self.send_header('Content-Length', str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[:400_000] if way in ('cut', 'plain') and
                         len(self.server.requests) < 3 else rest)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv(download.OFFLINE, '0')
    monkeypatch.setattr(download.time, 'sleep', lambda seconds: None)
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f'http://127.0.0.1:{server.server_port}'
        yield server
        server.shutdown()


@pytest.mark.parametrize('way', ['whole', 'cut', 'plain', 'moved', 'broken'])
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


def test_a_file_with_a_wrong_hash_is_refused(server, tmp_path):
    name = 'x-00000000_20220226.pth'
    for _ in range(2):
        with pytest.raises(ValueError, match='damaged'):
            download.download(f'{server.url}/whole/{name}', tmp_path / name)
        assert all(p.suffix == '.lock' for p in tmp_path.iterdir())


def test_offline_nothing_is_asked_for(server, tmp_path, monkeypatch):
    monkeypatch.setenv(download.OFFLINE, '1')
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
        server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(files.WEIGHTS, str(tmp_path / 'own'))
    url = f'{server.url}/whole/{NAME}'
    assert find_file(url) == tmp_path / 'own' / NAME == find_file(NAME)
    assert len(server.requests) == 1


def test_downloads_go_to_the_folder_of_torch_hub_by_default(
        tmp_path, monkeypatch):
    monkeypatch.delenv(files.WEIGHTS, raising=False)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert files.cache_folder() == tmp_path / 'hub' / 'checkpoints'
