# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Run a tool inside the process of a test."""
import importlib.util

import pytest
from helpers import CONFIGS, ROOT

CONFIG = str(CONFIGS / 'pose/hrformer_t_coco_256x192.py')

# A user's own config: two iterations an epoch, no workers.
OWN_CONFIG = f'''
_base_ = {CONFIG!r}
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, channels=(8, 16, 32, 64), heads=(1, 1, 2, 4),
                  modules=(1, 1, 1), blocks=1),
        init_cfg=None),
    head=dict(in_channels=8))
one = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(indices=4), **one)
val_dataloader = dict(dataset=dict(indices=4), **one)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
'''


def tool(name):
    """``main`` of a tool, to be called in this process."""
    spec = importlib.util.spec_from_file_location(
        f'tool_{name}', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def error_of(main, args, capsys):
    """The one line that a mistake ends in."""
    with pytest.raises(SystemExit) as exit:
        main([str(a) for a in args])
    assert exit.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].count('error: ') == 1
    assert not any('Traceback' in line for line in lines)
    return lines[-1]
