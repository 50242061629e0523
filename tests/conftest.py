# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Fixtures that several test files share."""
from importlib import import_module

import pytest
import torch

from hrformer_mm.core import attention, cpu


def take_gpu_path(monkeypatch: pytest.MonkeyPatch):
    """Make CPU tensors go the way that CUDA tensors go.

    The fast paths of CPUs are turned off wherever they are chosen, and raise
    an error if something takes them all the same; heads are padded as CUDA's
    attention kernels need it.
    """
    for module in (cpu, attention):
        monkeypatch.setattr(module, 'runs_on_cpu', lambda x: False)
    optimize = import_module('hrformer_mm.deploy.optimize')
    monkeypatch.setattr(optimize, 'fuses_gelu', lambda x: False)
    padding = attention.head_padding
    monkeypatch.setattr(attention, 'head_padding',
                        lambda d, device: padding(d, torch.device('cuda')))

    def refuse(*args):
        raise AssertionError('a CPU fast path was taken')

    for function in (cpu.RowAttention, cpu.PixelProduct):
        monkeypatch.setattr(function, 'apply', refuse)


@pytest.fixture(params=['CPU path', 'GPU path'])
def path(request, monkeypatch) -> str:
    """Run a test with the fast paths of CPUs, and as GPUs compute it."""
    if request.param == 'GPU path':
        take_gpu_path(monkeypatch)
    return request.param


@pytest.fixture
def gpu_path(monkeypatch):
    """Compute on CPU as GPUs compute it."""
    take_gpu_path(monkeypatch)
