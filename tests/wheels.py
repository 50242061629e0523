# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Build wheels from a copy of the checkout."""
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

IGNORED = shutil.ignore_patterns('.*', 'work_dirs', 'build', 'dist', 'data',
                                 '*.egg-info', '__pycache__', 'weights')


def run(*command, cwd: Path) -> str:
    done = subprocess.run([sys.executable, '-W', 'ignore', *map(str, command)],
                          cwd=cwd,
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(source: Path, target: Path) -> zipfile.ZipFile:
    run('-m',
        'pip',
        'wheel',
        '-q',
        '--no-deps',
        '--no-build-isolation',
        '-w',
        target,
        source,
        cwd=target)
    return zipfile.ZipFile(next(target.glob('*.whl')))
