# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""check_env reports what is broken and does not crash on it."""
import os
import runpy
import subprocess
import sys
from inspect import isfunction

import pytest
from helpers import ROOT

from hrformer_mm.utils import check_env
from hrformer_mm.utils.check_env import (
    ABSENT,
    BROKEN,
    FAULTS,
    FIXED,
    INSTALL,
    OK,
    Fault,
    find,
    run_probe,
)

PROBES = """
import os, sys, time

def well(): print('noise'); print('remark: all is well')
def fixed(): assert 'hrformer_mm' in sys.modules
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
        f'{probe} holds', probe, of, f'fix {probe}', ours=True, needed=needed)


@pytest.mark.parametrize('probe, state, remark', [
    ('well', OK, 'all is well'),
    ('fixed', FIXED, ''),
    ('broken', BROKEN, 'lines'),
    ('crashes', BROKEN, 'ended with -6'),
])
def test_a_problem_is_probed_with_and_without_the_package(
        probes, probe, state, remark):
    finding = find(fault(probe))
    assert (finding.state, finding.remark) == (state, remark)
    assert finding.is_fatal == (state == BROKEN)
    assert finding.command == ('fix ' + probe) * (state == BROKEN)


def test_an_incompatible_mmcv_gets_an_install_command():
    refusal = 'MMCV==2.2.0 is used but incompatible. Please install ...'
    finding = check_env.Diagnosis(fault('broken'), BROKEN, refusal)
    assert finding.command == check_env.ONE_MMCV


def test_a_hanging_probe_times_out(probes, monkeypatch):
    monkeypatch.setattr(check_env, 'SECONDS', 1)
    assert run_probe('hangs', fixed=False) == (False, 'took more than 1 s')


def test_missing_packages_are_not_probed(monkeypatch):
    monkeypatch.setattr(check_env, 'installed', lambda names: {})
    finding = find(fault('no_such_probe', ('mmpose', )))
    assert finding.state == ABSENT and not finding.is_fatal
    assert '--no-deps mmpose==1.3.2' in finding.command
    assert find(fault('no_such_probe', ('torch', ))).is_fatal


@pytest.mark.parametrize('names, code', [(['well'], 0),
                                         (['well', 'crashes'], 1)])
def test_the_exit_code_depends_on_required_packages_only(
        probes, names, code, monkeypatch, capsys):
    optional = fault('broken', needed=False)
    monkeypatch.setattr(check_env, 'FAULTS', [*map(fault, names), optional])
    assert check_env.main([]) == code
    out = capsys.readouterr().out
    assert 'torch ' in out and sys.executable in out
    assert all(f'{name} holds' in out for name in names)
    assert '  fix broken\n' in out
    assert ('  fix crashes\n' in out) == bool(code)


def test_every_problem_has_a_probe_and_missing_packages_a_command():
    names = {
        name
        for name, value in runpy.run_path(str(check_env.PROBES)).items()
        if isfunction(value) and value.__module__ == '<run_path>'
    } - {'remark', 'import_module'}
    assert names == {fault.probe for fault in FAULTS}
    assert {fault.of for fault in FAULTS if fault.of} <= set(INSTALL)
    assert not any('chumpy' in text for text in INSTALL.values())


@pytest.mark.parametrize('found, words', [
    (dict(torch='2.0.1'), ['torch 2.0.1 is older', 'supported version, 2.1']),
    (dict(torch='2.15.0+cu130'), ['torch 2.15.0+cu130 is newer', '2.14']),
    (dict(python='3.14.2'), ['python 3.14.2 is newer', '3.13']),
    (dict(mmengine='0.10.2'), ['mmengine 0.10.2 is older']),
    (dict(torch='2.1.2+cu121', python='3.10.13', numpy='1.26.4'), []),
    (dict(torch='2.14.1', python='3.13.0', mmcv='2.1.0'), []),
    (dict(torch='a git checkout'), []),
])
def test_untested_versions_are_reported(found, words):
    lines = check_env.untested(found)
    assert len(lines) == bool(words)
    assert all(word in lines[0] for word in words)


@pytest.mark.parametrize('found, command', [
    (dict(numpy='2.0.0', torch='2.1.2'), 'numpy<2'),
    (dict(numpy='1.26.4', torch='2.1.2'), None),
    (dict(numpy='2.4.6', torch='2.14.1'), None),
    (dict(mmcv='2.2.0', mmdet='3.3.0'), 'mmcv-lite==2.1.0'),
    (dict(mmcv='2.1.0', mmdet='3.3.0', mmsegmentation='1.2.2'), None),
    (dict(setuptools='82.0', mmengine='0.10.7'), 'setuptools>=68,<81'),
])
def test_incompatible_versions_get_a_command(found, command, monkeypatch,
                                             capsys):
    monkeypatch.setattr(check_env, 'installed', lambda names: dict(found))
    monkeypatch.setattr(check_env.platform, 'python_version',
                        lambda: '3.11.7')
    commands = check_env.print_combination()
    assert len(commands) == (command is not None)
    assert all(command in line for line in commands)
    out = capsys.readouterr().out
    assert ('cannot be used with' in out) == bool(command)


def test_tested_versions_are_those_of_the_requirements():
    def pins(name: str) -> dict:
        lines = (ROOT / f'requirements/{name}.txt').read_text().splitlines()
        return dict(line.split(';')[0].split('==') for line in lines
                    if '==' in line.split(';')[0])  # yapf: disable

    oldest, newest = pins('oldest'), pins('tested')
    for name, (first, last) in check_env.TESTED.items():
        if name in oldest:
            assert oldest[name].startswith(first), name
        if name in newest:
            assert newest[name].startswith(last), name


@pytest.mark.parametrize(
    'probe',
    ['xtcocotools_fits', 'runner_checkpoint_loads', 'mmcv_ops_import'])
def test_this_environment_has_no_unfixed_problem(probe):
    finding = find(next(f for f in FAULTS if f.probe == probe))
    assert finding.state in (OK, FIXED, ABSENT), finding.remark


def test_without_torch_check_env_still_prints_the_fix(tmp_path):
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
    first = done.stdout.partition('To fix them')[2].splitlines()[1]
    assert 'pip install --force-reinstall torch torchvision' in first
