# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Diagnose the environment: versions, known faults, and commands to fix them.

    python -m hrformer_mm.check_env

Each fault is tested in a process of its own, so that a crash does not end the
other checks. The exit code is 1 if a required package is broken.
"""
import os
import platform
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
PROBES = Path(__file__).with_name('env_probes.py')
SECONDS = 180  # timeout of a probe; the first import of torch can be slow
OK, BROKEN, ABSENT = 'ok', 'BROKEN', 'not installed'
FIXED = 'fixed by hrformer_mm'

# Alternative distributions of the same module.
ENGINE = ('mmengine', 'onedl-mmengine')
MMCV = ('mmcv', 'mmcv-lite', 'onedl-mmcv')
CV2 = ('opencv-python', 'opencv-python-headless')
SEG = ('mmsegmentation', 'onedl-mmsegmentation')
CLS = ('mmpretrain', 'onedl-mmpretrain')
DET = ('mmdet', 'onedl-mmdetection')
MIM = ('openmim', 'onedl-mim')
TORCH, VISION, POSE = ('torch', ), ('torchvision', ), ('mmpose', )
XTCOCO, COCO = ('xtcocotools', ), ('pycocotools', )

PIP = f'{sys.executable} -m pip'
ONE_MMCV = (f'{PIP} uninstall -y {" ".join(MMCV)} && '
            f'{PIP} install mmcv-lite==2.1.0 mmengine==0.10.7')

# Oldest and newest versions with which the tests have passed, see
# tools/test_matrix.sh.
TESTED = {
    'python': ('3.10', '3.13'),
    'torch': ('2.1', '2.14'),
    'numpy': ('1.26', '2.5'),
    'mmengine': ('0.10.3', '0.10.7'),
    'mmcv': ('2.1.0', '2.1.0'),
    'mmcv-lite': ('2.1.0', '2.1.0'),
    'mmpose': ('1.3.2', '1.3.2'),
    'mmsegmentation': ('1.2.2', '1.2.2'),
    'mmpretrain': ('1.1.1', '1.2.0'),
    'mmdet': ('3.2.0', '3.3.0'),
}
# Incompatible versions: a distribution from the first version on, another one
# below the second version, and the command that fixes the conflict.
CONFLICTS = (
    ('numpy', '2', 'torch', '2.3', f'{PIP} install "numpy<2"'),
    ('mmcv', '2.2', 'mmsegmentation', '1.3', ONE_MMCV),
    ('mmcv', '2.2', 'mmdet', '3.4', ONE_MMCV),
    ('setuptools', '82', 'mmengine', '0.10.8',
     f'{PIP} install "setuptools>=68,<81"'),
)

# Commands that install distributions.
INSTALL = {
    TORCH: f'{PIP} install torch torchvision',
    VISION: f'{PIP} install torchvision',
    CV2: f'{PIP} install opencv-python',
    ENGINE: f'{PIP} install mmengine==0.10.7',
    MMCV: f'{PIP} install mmcv-lite==2.1.0',
    POSE: f'{PIP} install json_tricks munkres pycocotools scipy && {PIP} '
    'install --no-deps mmpose==1.3.2',
    SEG: f'{PIP} install mmsegmentation==1.2.2 ftfy regex',
    CLS: f'{PIP} install mmpretrain==1.2.0',
    DET: f'{PIP} install mmdet==3.3.0',
    COCO: f'{PIP} install pycocotools',
    MIM: f'{PIP} uninstall -y onedl-mim openmim && {PIP} install '
    'openmim==0.3.9 openxlab==0.0.11 "setuptools<81"',
}
NEEDED = (TORCH, ENGINE)  # required by all tasks


@dataclass(frozen=True)
class Fault:
    """Known fault of a distribution.

    Attributes:
        what: Correct behavior, and the issue that reports the fault.
        probe: Function of ``probes.py`` that fails with the fault.
        of: Distributions that have the fault.
        fix: Command that fixes the fault.
        ours: Whether hrformer_mm fixes it, see :mod:`hrformer_mm.compat`.
        needed: Whether hrformer_mm cannot be used with the fault.
    """
    what: str
    probe: str
    of: tuple[str, ...]
    fix: str
    ours: bool = False
    needed: bool = True


# Causes come before their consequences.
FAULTS = (
    Fault('torch can be imported and supports this numpy', 'torch_imports',
          TORCH, f'{PIP} install --force-reinstall torch torchvision'),
    Fault('torchvision matches this torch', 'torchvision_fits', VISION,
          f'{PIP} install --upgrade torch=={{torch}} torchvision'),
    Fault('OpenCV can be imported (may lack libGL)', 'opencv_imports', CV2,
          f'{PIP} uninstall -y {" ".join(CV2)} && {PIP} install '
          'opencv-python-headless'),
    Fault('setuptools has pkg_resources (mmcv#3325, mim#242)',
          'pkg_resources_is_there', ENGINE,
          f'{PIP} install "setuptools>=68,<81"'),
    Fault("a Runner's checkpoint loads (mmengine#1655)",
          'runner_checkpoint_loads', ENGINE, INSTALL[ENGINE], ours=True),
    Fault('hrformer_mm:: configs are found (mmengine#1410)',
          'config_package_resolves', ENGINE,
          f'{PIP} install --no-deps -e {PACKAGE.parent}', ours=True),
    Fault('only one mmcv is installed', 'mmcv_is_there_once', MMCV, ONE_MMCV),
    Fault('mmcv.ops can be imported (mmcv#3319)', 'mmcv_ops_import', MMCV,
          ONE_MMCV, ours=True),
    Fault('pycocotools supports this numpy', 'pycocotools_fits', COCO,
          f'{PIP} install --force-reinstall --no-deps pycocotools'),
    Fault('MMPose reads and evaluates keypoints (xtcocoapi#45)',
          'xtcocotools_fits', POSE,
          f'{PIP} install --force-reinstall --no-deps pycocotools', ours=True),
    Fault('MMDetection can be imported with this mmcv',
          'mmdet_models_import', DET,
          f'{PIP} install pycocotools shapely six terminaltables tqdm'),
    Fault('MMSegmentation can be imported (mmsegmentation#3729, #3026)',
          'mmseg_models_import', SEG, f'{PIP} install ftfy regex'),
    Fault('MMPretrain can be imported', 'mmpretrain_models_import', CLS,
          INSTALL[CLS]),
    Fault('MMPose can be imported without chumpy (chumpy#57)',
          'mmpose_models_import', POSE, f'{INSTALL[DET]} && {INSTALL[POSE]}'),
    Fault('mim runs and finds scripts (mim#246)', 'mim_runs', MIM,
          INSTALL[MIM], needed=False),
    Fault('download.openmmlab.com has a valid certificate (mmcv#3302)',
          'openmmlab_server_answers', (),
          'put the weights into weights/, or export HRFORMER_MM_MIRROR=URL',
          needed=False),
)  # yapf: disable


@dataclass(frozen=True)
class Diagnosis:
    fault: Fault
    state: str
    remark: str = ''

    @property
    def is_fatal(self) -> bool:
        if self.state == ABSENT:
            return self.fault.of in NEEDED
        return self.state == BROKEN and self.fault.needed

    @property
    def command(self) -> str:
        """Return the command that fixes or installs it, or ''."""
        if self.state == ABSENT:
            return INSTALL[self.fault.of]
        if self.state != BROKEN:
            return ''
        if 'is used but incompatible' in self.remark:  # a framework's check
            return ONE_MMCV
        return self.fault.fix.format(torch=installed(TORCH).get('torch'))


def installed(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of the distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def run_probe(*names: str, fixed: bool) -> tuple[bool, str]:
    """Run probes in one process; return whether they pass, and a remark."""
    code = (f'import runpy; probes = runpy.run_path({str(PROBES)!r})\n'
            f'for name in {names}: probes[name]()')
    path = os.pathsep.join(
        filter(None, [str(PACKAGE.parent),
                      os.environ.get('PYTHONPATH')]))
    try:
        run = subprocess.run(
            [sys.executable, '-c', 'import hrformer_mm\n' * fixed + code],
            env=dict(os.environ, PYTHONPATH=path, PYTHONWARNINGS='ignore'),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False, f'took more than {SECONDS} s'
    passed = run.returncode == 0
    if passed:
        return True, run.stdout.partition('remark: ')[2].strip()
    lines = run.stderr.strip().splitlines()
    return False, lines[-1] if lines else f'ended with {run.returncode}'


def find(fault: Fault) -> Diagnosis:
    """Test for a fault; if we fix it, first without hrformer_mm."""
    if fault.of and not installed(fault.of):
        return Diagnosis(fault, ABSENT)
    for state in (OK, FIXED)[not fault.ours:]:
        passed, remark = run_probe(fault.probe, fixed=state == FIXED)
        if passed:
            return Diagnosis(fault, state if fault.ours else OK, remark)
    return Diagnosis(fault, BROKEN, remark)


def all_is_well() -> bool:
    """Return whether all required packages pass in one process."""
    needed = [f for f in FAULTS if f.needed]
    return all(installed(f.of) for f in needed) and run_probe(
        *(f.probe for f in needed), fixed=True)[0]


def print_versions():
    print(f'{"python":24}{platform.python_version()} ({sys.executable})')
    for name, number in installed(
        ('hrformer-mm', *TORCH, *VISION, 'numpy', *CV2, *ENGINE, *MMCV, *POSE,
         *SEG, *CLS, *DET, *XTCOCO, *COCO, *MIM, 'setuptools')).items():
        print(f'{name:24}{number}')


def version_numbers(text: str) -> tuple[int, ...]:
    """Convert a version to numbers: ``'2.10.0+cpu'`` to (2, 10, 0)."""
    found = re.match(r'\d+(\.\d+)*', text)
    return tuple(map(int, found[0].split('.'))) if found else ()


def untested(found: Mapping[str, str]) -> list[str]:
    """Describe versions that are older or newer than those tested."""
    lines = []
    for name, (oldest, newest) in TESTED.items():
        if name not in found:
            continue
        version = version_numbers(found[name])
        if version and version < version_numbers(oldest):
            lines.append(f'{name} {found[name]} is older than the oldest '
                         f'supported version, {oldest}')
        elif version[:len(version_numbers(newest))] > version_numbers(newest):
            lines.append(f'{name} {found[name]} is newer than the newest '
                         f'tested version, {newest}')
    return lines


def conflicts(found: Mapping[str, str]) -> dict[str, str]:
    """Return conflicts of versions, each with the command that fixes it."""
    return {
        f'{new} {found[new]} cannot be used with {old} {found[old]}': command
        for new, least, old, below, command in CONFLICTS
        if new in found and old in found
        and version_numbers(found[new]) >= version_numbers(least)
        and version_numbers(found[old]) < version_numbers(below)
    }


def print_combination() -> list[str]:
    """Print whether the combination of versions is tested.

    Returns:
        Commands that fix conflicts.
    """
    names = [n for pair in CONFLICTS for n in (pair[0], pair[2])]
    found = dict(installed([*TESTED, *names]),
                 python=platform.python_version())
    known, problems = untested(found), conflicts(found)
    print('\nVersions: ' + ('tested together or in between'
                            if not known and not problems else
                            '; '.join([*problems, *known])))
    return list(dict.fromkeys(problems.values()))


def test_faults(faults: Sequence[Fault]) -> list[Diagnosis]:
    """Test for faults, and print each result as soon as it is there."""
    findings = []
    width = max(len(fault.what) for fault in faults) + 2
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for finding in pool.map(find, faults):
            remark = f' ({finding.remark[:200]})' if finding.remark else ''
            print(f'{finding.fault.what:{width}}{finding.state}{remark}',
                  flush=True)
            findings.append(finding)
    return findings


def print_commands(findings: Sequence[Diagnosis], title: str,
                   first: Sequence[str] = ()):
    """Print each command once, those in ``first`` before the others."""
    commands = dict.fromkeys([*first, *(f.command for f in findings)])
    if commands:
        print(f'\n{title}')
        for command in commands:
            print(f'  {command}')


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(
        prog='python -m hrformer_mm.check_env',
        description='Diagnose the environment: print versions, known faults '
        'and the commands that fix them.')
    parser.add_argument(
        '--offline',
        action='store_true',
        help='do not connect to any server')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='test for all faults at once; report details only on failure')
    args = parser.parse_args(argv)
    if args.quick and all_is_well():
        return 0
    print_versions()
    together = print_combination()
    print('\nLooking for known faults:', flush=True)
    findings = test_faults([f for f in FAULTS if f.of or not args.offline])
    print_commands([f for f in findings if f.state == BROKEN or f.is_fatal],
                   'To fix them, start at the top; each may fix those below:',
                   together)
    print_commands(
        [f for f in findings if f.state == ABSENT and not f.is_fatal],
        'To install packages of further tasks:')
    return int(any(f.is_fatal for f in findings))


if __name__ == '__main__':
    sys.exit(main())
