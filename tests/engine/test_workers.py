# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Data comes from workers however they are started."""
import os
import pickle
import subprocess
import sys

import pytest
from helpers import CONFIGS, ROOT
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from tiny_tasks import task_config

from hrformer_mm import compat

PACKAGES = dict(pose='mmpose', seg='mmseg', cls='mmpretrain')
# As a tool of a framework does it: nothing of ours is imported by the script.
# The workers are those of both loaders, with what ExactResumeHook installs.
SCRIPT = '''
import sys
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner


def main():
    cfg = Config.fromfile(sys.argv[1])
    runner = Runner.from_cfg(cfg)
    from hrformer_mm.engine.hooks.resuming import install
    for number, loader in enumerate((cfg.train_dataloader,
                                     cfg.val_dataloader)):
        loader = runner.build_dataloader(loader, seed=0)
        assert loader.multiprocessing_context is None
        if not number:
            install(loader, 0)
        batch = next(iter(loader))
        print(len(batch['data_samples']))


if __name__ == '__main__':
    main()
'''


# A class whose module needs compiled ops, as those of datasets do.
PART = """
from mmcv import _ext


class Part:
    def __call__(self):
        print(type(_ext).__name__)
"""
PARENT = """
import multiprocessing
import sys


def call(part):
    part()


if __name__ == '__main__':
    import hrformer_mm
    from part import Part
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=call, args=(Part(), ))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_a_new_process_imports_us_before_its_arguments(method, tmp_path):
    from mmcv import _ext
    if not isinstance(_ext, compat.MissingOps):
        pytest.skip('mmcv is compiled, so nothing needs us')
    (tmp_path / 'part.py').write_text(PART)
    (tmp_path / 'parent.py').write_text(PARENT)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', 'parent.py', method], cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True,
        text=True)  # yapf: disable
    assert done.stdout.strip() == 'MissingOps', done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize('method', ['spawn', 'forkserver', 'fork'])
@pytest.mark.parametrize('task', PACKAGES)
def test_workers_read_data_without_an_import_of_us_in_the_script(
        task, method, tmp_path):
    pytest.importorskip(PACKAGES[task])
    cfg = task_config(task, tmp_path, samples=2)
    cfg.env_cfg.mp_cfg.mp_start_method = method
    for name in ('train_dataloader', 'val_dataloader'):
        cfg[name].num_workers = 1
    cfg.dump(tmp_path / 'own.py')
    (tmp_path / 'script.py').write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', 'script.py', 'own.py'], cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True,
        text=True)  # yapf: disable
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert done.stdout.splitlines().count('2') == 2


@pytest.mark.parametrize('path', [
    'pose/hrformer_s_coco_256x192.py', 'pose/hrformer_s_coco_384x288_dark.py',
    'pose/hrformer_s_coco_256x192_udp.py', 'pose/custom_keypoints.py',
    'seg/hrformer_s_cityscapes_512x1024.py', 'seg/custom_labels.py',
    'seg/hrformer_s_pascal-context_520x520.py',
    'cls/hrformer_t_imagenet_224.py', 'cls/hrformer_t_digits_64.py'])
def test_pipelines_can_be_sent_to_workers(path):
    """All steps of all loaders, there and back, with their attributes."""
    cfg = Config.fromfile(CONFIGS / path)
    pytest.importorskip(cfg.default_scope)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            for step in cfg[name].dataset.pipeline:
                built = TRANSFORMS.build(step)
                copy = pickle.loads(pickle.dumps(built))
                assert type(copy) is type(built)
                assert [*vars(copy)] == [*vars(built)]
