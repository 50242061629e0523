# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Functions whose names differ between versions of torch."""
import re
from importlib import reload

import pytest
import torch
from helpers import ROOT
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from hrformer_mm.core import versions
from hrformer_mm.deploy import export

# Names that torch 2.1 lacks, and the only file that may ask for each.
NEWER = {
    r'torch\.compiler\.is_compiling': 'core/versions.py',
    r'is_autocast_enabled\([\'"]': 'core/versions.py',
    r'flop_registry': 'core/versions.py',
    r'from torch.* import .*register_flop_formula.*\n': None,
    r'torch\.accelerator|torch\.nn\.attention': None,
    # Imported only where PyTorch has it.
    r'torch\.library\.custom_op': 'core/kernels/triton/ops.py',
    r'torch\.amp\.GradScaler|torch\.nn\.Buffer|nn\.RMSNorm': None,
    r'^from torch\.export import': None,
}  # yapf: disable


@pytest.fixture
def reloaded():
    """Reload the module for a changed torch, and again for the real one."""
    yield lambda: reload(versions)
    reload(versions)


@pytest.mark.parametrize('version, least, wanted', [
    ('2.1.2', '2.2', False), ('2.1.2+cu121', '2.1', True),
    ('2.4.0a0', '2.4', True), ('2.10.0', '2.4', True),
    ('2.14.0.dev20261101+cu130', '2.14', True)])  # yapf: disable
def test_versions_are_compared_as_numbers(version, least, wanted,
                                          monkeypatch):
    monkeypatch.setattr(torch, '__version__', version)
    assert versions.torch_is_at_least(least) == wanted


def test_autocast_on_cpu_is_detected():
    assert not versions.is_autocast_enabled_on_cpu()
    with torch.autocast('cpu', torch.bfloat16):
        assert versions.is_autocast_enabled_on_cpu()


def test_autocast_is_detected_with_torch_before_2_4(monkeypatch, reloaded):
    monkeypatch.setattr(torch, '__version__', '2.1.2')
    monkeypatch.setattr(
        torch, 'is_autocast_cpu_enabled', lambda: 'old', raising=False)
    assert reloaded().is_autocast_enabled_on_cpu() == 'old'


def test_compiling_is_detected_with_torch_before_2_2(monkeypatch, reloaded):
    monkeypatch.delattr(torch.compiler, 'is_compiling', raising=False)
    module = reloaded()
    assert module.is_compiling is torch._utils.is_compiling


def count(x: torch.Tensor, weight: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        torch.mkldnn_convolution(x, weight, None, (0, 0), (1, 1), (1, 1), 1)
    return counter.get_total_flops()


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='needs oneDNN')
def test_products_through_onednn_are_counted():
    assert count(torch.ones(1, 4, 6, 1), torch.ones(5, 4, 1, 1)) == (
        2 * 6 * 4 * 5)


def test_formulas_reach_the_counter_of_torch_before_2_2(monkeypatch):
    mapping = {}
    monkeypatch.delattr(flop_counter, 'flop_registry', raising=False)
    monkeypatch.setattr(flop_counter, 'flop_mapping', mapping, raising=False)
    versions.register_flop_formula('operator', conv_flop_count)
    versions.register_flop_formula('operator', min)
    assert mapping == {'operator': conv_flop_count}


def test_an_old_torch_cannot_export(monkeypatch, tmp_path):
    monkeypatch.setattr(export, 'can_export', lambda: False)
    with pytest.raises(ImportError, match='too old to export.*upgrade torch'):
        export.check_before(tmp_path / 'x.onnx', 'onnx', False, 'x.pth')


@pytest.mark.parametrize('pattern', NEWER)
def test_newer_functions_of_torch_are_used_in_one_place(pattern):
    users = {
        path.relative_to(ROOT).as_posix().partition('/')[2]
        for folder in ('hrformer_mm', 'tools')
        for path in (ROOT / folder).rglob('*.py') if '.mim' not in path.parts
        and re.search(pattern, path.read_text(), re.MULTILINE)
    }
    assert users <= {NEWER[pattern]}
