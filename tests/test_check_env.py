# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""check_env tells what is broken, and survives it."""
import os
import runpy
import subprocess
import sys
from inspect import isfunction

import pytest
from helpers import ROOT

from hrformer_mm import check_env
from hrformer_mm.check_env import (ABSENT, BROKEN, FAULTS, INSTALL, MENDED, OK,
                                   Fault, find, run_probe)

PROBES = """
import os, sys, time

def well(): print('noise'); print('remark: all is well')
def mended(): assert 'hrformer_mm' in sys.modules
def broken(): raise ValueError('two\\nlines')
def crashes(): os.abort()
def hangs(): time.sleep(60)
"""


@pytest.fixture
def probes(tmp_path, monkeypatch):
    """Probes that end in each way there is."""
    path = tmp_path / 'probes.py'
    path.write_text(PROBES)
    monkeypatch.setattr(check_env, 'PROBES', path)


def fault(probe: str, of=('torch', ), needed: bool = True) -> Fault:
    return Fault(
        f'{probe} holds', probe, of, f'mend {probe}', ours=True, needed=needed)


@pytest.mark.parametrize('probe, state, remark', [
    ('well', OK, 'all is well'),
    ('mended', MENDED, ''),
    ('broken', BROKEN, 'lines'),
    ('crashes', BROKEN, 'ended with -6'),
])
def test_a_fault_is_looked_for_with_and_without_us(probes, probe, state,
                                                   remark):
    finding = find(fault(probe))
    assert (finding.state, finding.remark) == (state, remark)
    assert finding.is_fatal == (state == BROKEN)
    assert finding.command == ('mend ' + probe) * (state == BROKEN)


def test_a_framework_that_refuses_this_mmcv_gets_another():
    refusal = 'MMCV==2.2.0 is used but incompatible. Please install ...'
    finding = check_env.Finding(fault('broken'), BROKEN, refusal)
    assert finding.command == check_env.ONE_MMCV


def test_a_probe_that_hangs_is_given_up(probes, monkeypatch):
    monkeypatch.setattr(check_env, 'SECONDS', 1)
    assert run_probe('hangs', mended=False) == (False, 'took more than 1 s')


def test_what_is_absent_is_not_looked_for(monkeypatch):
    monkeypatch.setattr(check_env, 'installed', lambda names: {})
    finding = find(fault('no_such_probe', ('mmpose', )))
    assert finding.state == ABSENT and not finding.is_fatal
    assert '--no-deps mmpose==1.3.2' in finding.command
    assert find(fault('no_such_probe', ('torch', ))).is_fatal


@pytest.mark.parametrize('names, code', [(['well'], 0),
                                         (['well', 'crashes'], 1)])
def test_the_exit_code_says_whether_something_needed_is_broken(
        probes, names, code, monkeypatch, capsys):
    optional = fault('broken', needed=False)
    monkeypatch.setattr(check_env, 'FAULTS', [*map(fault, names), optional])
    assert check_env.main([]) == code
    out = capsys.readouterr().out
    assert 'torch ' in out and sys.executable in out
    assert all(f'{name} holds' in out for name in names)
    assert '  mend broken\n' in out
    assert ('  mend crashes\n' in out) == bool(code)


def test_every_fault_has_a_probe_and_what_is_absent_a_command():
    names = {
        name
        for name, value in runpy.run_path(str(check_env.PROBES)).items()
        if isfunction(value) and value.__module__ == '<run_path>'
    } - {'remark', 'import_module'}
    assert names == {fault.probe for fault in FAULTS}
    assert {fault.of for fault in FAULTS if fault.of} <= set(INSTALL)
    assert not any('chumpy' in text for text in INSTALL.values())


@pytest.mark.parametrize('probe',
                         ['runner_checkpoint_loads', 'mmcv_ops_import'])
def test_this_environment_has_no_fault_that_is_not_mended(probe):
    finding = find(next(f for f in FAULTS if f.probe == probe))
    assert finding.state in (OK, MENDED, ABSENT), finding.remark


def test_without_torch_it_still_says_what_to_do(tmp_path):
    (tmp_path / 'torch.py').write_text('raise ImportError("torch is gone")')
    done = subprocess.run(
        [sys.executable, '-m', 'hrformer_mm.check_env', '--offline'],
        cwd=tmp_path,
        env=dict(
            os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path),
                                                    str(ROOT)])),
        capture_output=True,
        text=True)
    assert done.returncode == 1, done.stderr
    assert 'ImportError: torch is gone' in done.stdout
    first = done.stdout.partition('To mend it')[2].splitlines()[1]
    assert 'pip install --force-reinstall torch torchvision' in first
