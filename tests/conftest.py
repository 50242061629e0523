# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Fixtures that several test files share."""
import os
import sys
from functools import lru_cache
from importlib import import_module

import pytest
import torch

pytest.register_assert_rewrite('golden', 'predicting', 'processes',
                               'tool_runs', 'wheels')
os.environ['HRFORMER_MM_OFFLINE'] = '1'  # no test downloads from the internet
if not torch.cuda.is_available():
    # Run Triton's kernels on CPU. Must be set before Triton is imported, which
    # the package does indirectly.
    os.environ.setdefault('TRITON_INTERPRET', '1')
import_module('hrformer_mm')


@pytest.fixture(scope='session', autouse=True)
def quick_runners():
    """Skip what takes most of the time of a Runner with a small model.

    Its config is printed and saved without yapf's line breaks, which change
    no value, and the machine is described once. Runners in processes of their
    own do both.
    """
    with pytest.MonkeyPatch.context() as patch:
        if 'mmengine.runner' in sys.modules:  # tests of the core need none
            runner = import_module('mmengine.runner.runner')
            patch.setattr(runner, 'collect_env', lru_cache(runner.collect_env))
            patch.setattr('mmengine.config.config.FormatCode',
                          lambda text, **options: (text, True))
        yield


@pytest.fixture(autouse=True)
def deterministic_mode():
    """Undo what trainings of a test that are deterministic leave behind."""
    yield
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)


def take_gpu_path(monkeypatch: pytest.MonkeyPatch):
    """Make CPU tensors go the way that CUDA tensors go.

    The fast paths of CPUs are turned off wherever they are chosen, and raise
    an error if something takes them all the same; heads are padded as CUDA's
    attention kernels need it.
    """
    cpu, feed_forward, heads = (
        import_module(f'hrformer_mm.core.kernels.{name}')
        for name in ('cpu', 'feed_forward', 'heads'))
    for module in (cpu, feed_forward, heads):
        monkeypatch.setattr(module, 'runs_on_cpu', lambda x: False)
    padding = heads.head_padding
    monkeypatch.setattr(heads, 'head_padding',
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
