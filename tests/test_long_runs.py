# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Switches of long runs on two processes, and together."""
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from toy import ENV


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    """Folder with the runs of tests/dist_long.py on two processes."""
    folder = tmp_path_factory.mktemp('two_processes')
    done = subprocess.run([
        sys.executable, '-m', 'torch.distributed.run', '--standalone',
        '--nproc_per_node=2', ROOT / 'tests/dist_long.py', folder,
        'checkpointing'
    ], env=ENV, timeout=600, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


def saved(folder, name='epoch_1.pth'):
    return torch.load(folder / name, weights_only=True)['state_dict']


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize('level', ['ffn', True])
def test_checkpointing_with_synchronised_norms_keeps_every_bit(
        level, two_processes):
    assert_same_bits(saved(two_processes / f'with_cp_{level}'),
                     saved(two_processes / 'with_cp_False'))
