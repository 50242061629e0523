# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Text files are UTF-8, with or without a byte order mark, in any locale."""
import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from helpers import ROOT, write_tiny_coco
from mmengine.config import Config
from predicting import smooth, write_config

from hrformer_mm.compat import open_text
from hrformer_mm.utils import io as textio

POSIX = dict(LC_ALL='POSIX', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
BOM = b'\xef\xbb\xbf'
NAME = 'mür 猫'


def run_posix(*args, code=0):
    """Run Python in the POSIX locale, where text is ASCII."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, args)], cwd=ROOT,
        env={**os.environ, **POSIX, 'PYTHONPATH': str(ROOT)},
        capture_output=True)  # yapf: disable
    text = (done.stdout + done.stderr).decode('utf-8', 'replace')
    assert done.returncode == code, text
    assert 'UnicodeEncodeError' not in text, text
    return text


@pytest.mark.parametrize('bom', [b'', BOM])
def test_text_is_read_with_or_without_a_mark(tmp_path, bom):
    path = tmp_path / 'a.json'
    path.write_bytes(bom + json.dumps([NAME], ensure_ascii=False).encode())
    assert textio.read_json(path) == [NAME]
    assert open_text(path).read() == f'["{NAME}"]'
    with open_text(path, 'w') as file:
        file.write(NAME)
    assert path.read_bytes() == NAME.encode()
    textio.write_text(path, NAME)
    assert path.read_bytes() == NAME.encode()
    assert open_text(path, 'rb').read() == NAME.encode()


def test_files_that_are_not_utf8_are_reported(tmp_path):
    (tmp_path / 'a.txt').write_bytes('é'.encode('latin-1'))
    with pytest.raises(ValueError, match='a.txt is not UTF-8 .byte 0'):
        textio.read_text(tmp_path / 'a.txt')
    (tmp_path / 'a.json').write_text('{')
    with pytest.raises(ValueError, match='a.json is not a JSON file'):
        textio.read_json(tmp_path / 'a.json')


def write_files(folder, bom):
    """Configs of both styles, annotations and a list."""
    folder.mkdir()
    content = dict(images=[], annotations=[],
                   categories=[dict(id=1, name=NAME)])
    for name, text in {
            'base.py': f"a = '{NAME}'\n",
            'b.py': f"_base_ = './base.py'\nb = '{NAME}'\n",
            'lazy.py': 'from mmengine.config import read_base\n'
                       'with read_base():\n    from .base import *\n'
                       f"b = '{NAME}'\n",
            'a.json': json.dumps(content, ensure_ascii=False),
            'a.txt': NAME}.items():  # yapf: disable
        (folder / name).write_bytes(bom + text.encode())


READ_ALL = """
import json, sys, hrformer_mm
from mmengine.fileio import list_from_file, load
from pycocotools.coco import COCO
from xtcocotools.coco import COCO as XCOCO
from hrformer_mm.engine.train import read_config
found = {}
for form in () if sys.flags.utf8_mode else ('plain', 'bom'):
    folder = sys.argv[1] + '/' + form
    for style in ('b', 'lazy'):
        cfg = read_config(folder + f'/{style}.py')
        found[f'{style} {form}'] = [cfg.a, cfg.b]
    for kind in (COCO, XCOCO):
        name = kind(folder + '/a.json').loadCats([1])[0]['name']
        found[f'{kind.__module__} {form}'] = [name]
    found[f'list {form}'] = list_from_file(folder + '/a.txt')
    found[f'load {form}'] = [
        c['name'] for c in load(folder + '/a.json')['categories']]
print('found', json.dumps(found))
from hrformer_mm.__main__ import main
del sys.argv[1]  # the command restarts this program in UTF-8 mode
sys.exit(main())
"""


@pytest.fixture(scope='module')
def posix(tmp_path_factory):
    """Files read, and a prediction, in a process of the POSIX locale."""
    folder = tmp_path_factory.mktemp('posix')
    for form, bom in (('plain', b''), ('bom', BOM)):
        write_files(folder / form, bom)
    config, weights = write_config('pose', folder)
    text = f'# {NAME}\n' + Path(config).read_text('utf-8')
    Path(config).write_bytes(BOM + text.encode())
    (folder / NAME).mkdir()
    image = folder / NAME / f'{NAME}.jpg'
    image.write_bytes(cv2.imencode('.jpg', smooth(0))[1].tobytes())
    content = dict(
        images=[dict(id=7, file_name=f'{NAME}/{NAME}.jpg')],
        annotations=[dict(image_id=7, bbox=[9, 9, 50, 50], category_id=2)],
        categories=[dict(id=2, name=NAME)])
    (folder / 'boxes.json').write_bytes(
        BOM + json.dumps(content, ensure_ascii=False).encode())
    text = run_posix('-c', READ_ALL, folder, 'predict', config, weights,
                     image, '--boxes', folder / 'boxes.json',
                     '--device', 'cpu', '--out-dir', folder / 'out')
    line = next(x for x in text.splitlines() if x.startswith('found '))
    return folder, json.loads(line[6:])


@pytest.mark.parametrize('form', ['plain', 'bom'])
@pytest.mark.parametrize('kind', ['b', 'lazy'])
def test_configs_and_what_they_inherit_may_have_a_mark(posix, kind, form):
    assert posix[1][f'{kind} {form}'] == [NAME, NAME]


@pytest.mark.parametrize('form', ['plain', 'bom'])
@pytest.mark.parametrize('kind', ['pycocotools.coco', 'xtcocotools.coco',
                                  'list', 'load'])
def test_frameworks_read_lists_and_annotations_with_a_mark(posix, kind, form):
    assert posix[1][f'{kind} {form}'] == [NAME]


def test_prediction_works_in_the_posix_locale(posix):
    images = textio.read_json(posix[0] / 'out/images.json')
    assert images['categories'][0]['name'] == NAME
    assert images['images'][0]['file_name'].endswith(f'{NAME}.jpg')
    found, = textio.read_json(posix[0] / 'out/predictions.json')
    assert found['image_id'] == 7
    assert (posix[0] / f'out/overlays/{NAME}.jpg').exists()


READ_NAMED = """
import sys, cv2, numpy, hrformer_mm
from mmcv.image import imread
path = bytes.fromhex(sys.argv[1]).decode()  # as annotations have it
assert imread(path).shape == (9, 9, 3)
"""


def test_frameworks_read_images_with_any_name_in_the_posix_locale(tmp_path):
    path = tmp_path / f'{NAME}.png'
    path.write_bytes(cv2.imencode('.png', smooth(0, 9, 9))[1].tobytes())
    run_posix('-c', READ_NAMED, str(path).encode().hex())


@pytest.mark.slow
def test_training_and_test_work_in_the_posix_locale(tmp_path):
    from helpers import tiny_config
    data = write_tiny_coco(tmp_path / NAME)
    for path in (data / 'annotations').glob('*.json'):
        content = json.loads(path.read_text())
        for image in content['images']:
            image['file_name'] = f"{NAME} {image['file_name']}"
        path.write_bytes(
            BOM + json.dumps(content, ensure_ascii=False).encode())
    for path in [*data.rglob('*.jpg')]:
        path.rename(path.with_name(f'{NAME} {path.name}'))
    cfg = tiny_config('pose/hrformer_t_coco_256x192.py', tmp_path / 'work',
                      data)
    cfg.notes = NAME
    cfg.dump(tmp_path / 'row.py')
    # Some boxes of this noise are outside of its images.
    text = run_posix('tools/check_dataset.py', tmp_path / 'row.py', code=1)
    assert '3 images, 6 instances' in text
    assert 'does not exist' not in text and 'cannot be' not in text
    run_posix('tools/train.py', tmp_path / 'row.py')
    log, = (tmp_path / 'work').glob('*/*.log')
    assert NAME in log.read_text('utf-8')
    last, = (tmp_path / 'work').glob('epoch_*.pth')
    text = run_posix('tools/test.py', tmp_path / 'row.py', last)
    assert 'coco/AP' in text


def test_no_file_is_opened_in_the_encoding_of_the_locale():
    """Every text file that the package or a tool opens names UTF-8."""
    wrong = []
    for path in [*ROOT.glob('hrformer_mm/**/*.py'),
                 *ROOT.glob('tools/**/*.py'), ROOT / 'setup.py']:
        if '.mim' in path.parts or path.name == 'textio.py':
            continue
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
            text = [ast.unparse(a) for a in node.args]
            named = any('utf-8' in a for a in text) or any(
                k.arg in (None, 'encoding') for k in node.keywords)
            is_open = isinstance(node.func, ast.Name) and name == 'open' and \
                not any('b' in a for a in text[1:2])
            own = isinstance(node.func, ast.Name) and name != 'open'
            if not named and not own and (
                    name in ('read_text', 'write_text') or is_open):
                wrong.append(f'{path.name}:{node.lineno}')
    assert wrong == []


def test_dumping_and_reading_a_config_keeps_text(tmp_path):
    Config(dict(a=NAME)).dump(tmp_path / 'a.py')
    assert Config.fromfile(tmp_path / 'a.py').a == NAME
