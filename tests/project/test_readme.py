# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Every command and snippet of the README runs, on tiny data."""
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from animals import write_animals
from foreign import TINY
from helpers import ROOT, package_folders, tiny_config, write_tiny_coco
from image_folders import write_images, write_labels
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from predicting import smooth, write_config, write_photos, write_video
from seg_data import write_tiny
from training_logs import trained, write_log
from wheels import IGNORED

from hrformer_mm.checkpoints import convert
from hrformer_mm.deploy.export import export
from hrformer_mm.models.backbones import HRFormer

README = (ROOT / 'README.md').read_text()
PAGES = {path: path.read_text()
         for path in [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md'))]}


def fenced(language: str, text: str = README):
    return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


# Every command of the README and of the pages in docs, once.
COMMANDS = list(dict.fromkeys(
    line.partition('#')[0].strip() for text in PAGES.values()
    for block in fenced('bash', text)
    for line in block.replace('\\\n', ' ').splitlines() if line.strip()))
ARCH = {
    'model.backbone.arch': dict(
        _delete_=True, channels=TINY.channels, heads=TINY.heads,
        modules=TINY.modules, blocks=1)
}  # yapf: disable
OWN_DATA = {'path/to/keypoints': 'pose', 'path/to/labels': 'seg',
            'path/to/images': 'cls'}  # yapf: disable
# Options of configs that make them small enough, by task.
SMALL = dict(
    pose={**ARCH, 'model.head.in_channels': TINY.channels[0]},
    seg={
        **ARCH, 'model.decode_head.in_channels': TINY.channels,
        'model.decode_head.channels': 16,
        'model.decode_head.ocr_channels': 8,
        'crop_size': (32, 64), 'model.data_preprocessor.size': (32, 64),
    },
    cls={**ARCH, 'model.neck.in_channels': TINY.channels})  # yapf: disable


def write_data(task: str, root: Path, is_custom: bool) -> Path:
    if is_custom and task == 'pose':
        write_animals(root)
    elif is_custom and task == 'seg':
        write_labels(root, [1])
    elif task == 'pose':
        write_tiny_coco(root)
    elif task == 'seg':
        write_tiny('cityscapes', root)
    else:
        write_images(root, 'folders')
    return root


def shrink(config: str, folder: Path) -> Path:
    """Write the config of a command, made tiny, as a file of the same name."""
    task = config.split('/')[1]
    data = write_data(task, folder / task, 'custom' in config)
    cfg = tiny_config(ROOT / config, folder / 'work', data, **SMALL[task])
    cfg.load_from = None
    for step in cfg.train_dataloader.dataset.pipeline:
        if 'crop_size' in step:
            step.crop_size = SMALL['seg']['crop_size']
    if 'folder' in config:
        cfg.model.head.num_classes = 2
        cfg.model.data_preprocessor.num_classes = 2
    if 'imagenet' in config:
        for part in ('train', 'val', 'test'):
            cfg[f'{part}_dataloader'].dataset.metainfo = dict(
                classes=('one', 'two'))
    path = folder / Path(config).name
    cfg.dump(path)
    return path


def checkpoint_of(config: Path) -> Path:
    """Random weights for a config, as the Runner saves them."""
    torch.manual_seed(0)
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    path = config.with_suffix('.pth')
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)
    return path


def official_pose_weights(path: Path) -> Path:
    model = HRFormer(TINY, out_indices=(0, ), upsample='bilinear')
    ours = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    state_dict, _ = convert(ours, 'official-pose')
    torch.save(dict(state_dict=state_dict), path)
    return path


def write_inputs(folder: Path):
    """Write inputs under the names that the commands use."""
    (folder / 'images').mkdir()
    write_photos(folder / 'images')
    cv2.imwrite(str(folder / 'photo.jpg'), smooth(0))
    write_video(folder / 'clip.mp4')


def write_run(folder: Path) -> Path:
    """The log of a quickstart."""
    return write_log(folder, [*trained(1, 4), {'coco/AP': .5, 'step': 1}])


def adapt(command: str, folder: Path):
    """A command with tiny configs, data and weights, and fewer processes."""
    words = shlex.split(command)
    for i, word in enumerate(words):
        if word.startswith('configs/'):
            words[i] = str(shrink(word, folder))
            config = words[i]
        elif word in ('work_dirs/quickstart_pose', 'work_dirs/quickstart_seg'):
            words[i] = str(write_run(folder / word))
        elif word.startswith('work_dirs/') and word.endswith('.py'):
            words[i] = str(shrink(f'configs/pose/{Path(word).name}', folder))
            config = words[i]
        elif word.startswith('work_dirs/') and word.endswith('.pth'):
            words[i] = str(checkpoint_of(Path(config)))
        elif word.startswith(('work_dirs/', 'predictions/')):  # of results
            words[i] = str(folder / word)
        elif word.startswith('data/scenes/'):
            words[i] = str(folder / 'photo.jpg')
        elif word.startswith('data/people/val2017/'):
            words[i] = str(folder / 'photo.jpg')
        elif word.startswith('data/people'):
            words[i] = str(folder / f'pose{word[len("data/people"):]}')
        elif word in ('photo.jpg', 'images/', 'clip.mp4', 'person.onnx',
                      'drawn.png'):
            words[i] = str(folder / word)
        elif word in OWN_DATA:
            words[i] = str(folder / OWN_DATA[word])
        elif word == 'hrt_small_coco_384x288.pth':
            words[i] = str(official_pose_weights(folder / word))
        elif word == 'pose_s.pth':
            words[i] = str(folder / word)
        elif word == '8':
            words[i] = '2'
    if any(word in command for word in (' predict ', 'visualize', 'onnx_')):
        write_inputs(folder)
    if 'onnx_' in command:
        export(Config.fromfile(write_config('pose', folder)[0]),
               str(folder / 'pose.pth'), folder / 'person.onnx', post=True)
    if any(word in command for word in (' predict ', 'visualize', 'browse',
                                        'plot_curves')):  # yapf: disable
        words += ['--out-dir', str(folder / 'run')]
    if 'benchmark' in command:
        words += ['--out', str(folder / 'run'), '--repeats', '2']
    if 'train' in command or 'test.' in command or 'test ' in command:
        words += ['--work-dir', str(folder / 'run')]
    if 'quickstart.sh' in command:
        words += ['--work-dir', str(folder / 'run'), '--train-images', '16',
                  '--val-images', '4', '--epochs', '1']
    if 'run_tests' in command:  # the suite is running already
        words = words[:2] + ['--collect-only', 'tests/zoo']
    return words


INSTALLATIONS = fenced('sh')


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the checkout, whose ``.venv`` has not been made yet."""
    target = tmp_path / 'checkout'
    shutil.copytree(ROOT, target, symlinks=True, ignore=IGNORED)
    return target


def environment_of(folder: Path, *options: str) -> Path:
    """A virtual environment that sees all packages of this one but ours."""
    subprocess.run([sys.executable, '-m', 'venv', str(folder), *options],
                   check=True)
    site = next(folder.glob('lib/python*/site-packages'))
    for path in site.glob('setuptools*'):  # may be newer than mmengine takes
        shutil.rmtree(path)
    (site / 'packages.pth').write_text(package_folders())
    return folder


def test_installation_comes_first_and_has_its_four_ways():
    assert re.findall(r'^## (.*)', README, re.MULTILINE)[0] == 'Installation'
    assert len(INSTALLATIONS) == 4
    assert all(len(block.splitlines()) <= 3 for block in INSTALLATIONS)


@pytest.mark.slow
@pytest.mark.parametrize('block', INSTALLATIONS)
def test_an_installation_of_the_readme_works(block, checkout, tmp_path):
    """In an environment that has all packages, so nothing is downloaded."""
    if 'setup_env' in block:  # the first line would make an empty one
        environment_of(checkout / '.venv')
        block = '\n'.join(block.splitlines()[1:])
        prefix = checkout / '.venv'
    else:
        prefix = environment_of(tmp_path / 'env')
    env = dict(PATH=f'{prefix}/bin:/usr/local/bin:/usr/bin:/bin',
               HOME=str(tmp_path), PIP_NO_BUILD_ISOLATION='0',
               PIP_DISABLE_PIP_VERSION_CHECK='1')
    done = subprocess.run(['bash', '-euc', block], cwd=checkout, env=env,
                          capture_output=True, text=True,
                          timeout=600)  # yapf: disable
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    where = subprocess.run(
        [prefix / 'bin/python', '-c',
         'import hrformer_mm; print(hrformer_mm.__file__)'],
        cwd=tmp_path, env=env, capture_output=True, text=True)  # yapf: disable
    stays = '-e' in block.split() or 'setup_env' in block
    expected = checkout if stays else prefix
    assert Path(where.stdout.strip()).is_relative_to(expected), where.stderr


def test_the_readme_has_its_commands():
    assert len(COMMANDS) >= 10
    assert COMMANDS[:2] == ['bash tools/quickstart.sh',
                            'bash tools/run_tests.sh']


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
def test_a_command_of_the_readme_runs(command, tmp_path):
    words = adapt(command, tmp_path)
    bin_dir = Path(sys.executable).parent
    env = dict(PATH=f'{bin_dir}:/usr/local/bin:/usr/bin:/bin',
               VIRTUAL_ENV=str(bin_dir.parent), HOME=str(tmp_path),
               OMP_NUM_THREADS='1')
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True,
                          text=True, timeout=500)  # yapf: disable
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_the_config_snippet_of_the_readme_builds():
    snippet = next(b for b in fenced('python') if 'custom_imports' in b)
    scope = {}
    exec(snippet, scope)
    backbone = dict(scope['model']['backbone'], init_cfg=None)
    assert backbone.pop('_delete_')
    assert type(MODELS.build(backbone)) is HRFormer


def test_the_framework_free_snippet_of_the_readme_runs():
    snippet = next(b for b in fenced('python') if 'hrformer_mm.core' in b)
    scope = {}
    exec(snippet, scope)
    assert [tuple(x.shape) for x in scope['maps']] == [
        (1, 32, 56, 56), (1, 64, 28, 28), (1, 128, 14, 14), (1, 256, 7, 7)]


def test_the_prediction_snippet_of_the_readme_runs(tmp_path, monkeypatch,
                                                   capsys):
    config, weights = write_config('pose', tmp_path)
    Path(config).rename(tmp_path / 'config.py')
    Path(weights).rename(tmp_path / 'weights.pth')
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(next(b for b in fenced('python') if 'load_predictor' in b), {})
    assert '[[[' in capsys.readouterr().out


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.stem)
def test_links_and_pictures_of_a_page_exist(page):
    links = re.findall(r'\]\(([^)#]+)[^)]*\)', PAGES[page])
    local = [link for link in links if '://' not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not missing


def test_the_readme_is_short_and_narrow_and_links_every_page():
    assert len(README.splitlines()) <= 260
    assert max(map(len, README.splitlines())) <= 160
    assert all(f'](docs/{page.name})' in README or page.name in (
        'README.md', 'resume-and-clusters.md', 'architecture.md')
               for page in PAGES)
