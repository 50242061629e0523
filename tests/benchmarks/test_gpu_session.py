# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The prepared run on a GPU machine, rehearsed without one."""
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.backbone import __main__ as backbone
from benchmarks.backbone.subjects import INFERENCE_ONLY
from hrformer_mm.core.kernels import triton

ROOT = Path(__file__).resolve().parents[2]


def run_session(out: Path, **environment: str):
    """Run the session and return its steps and the names of its files."""
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    run = subprocess.run(
        ['bash', 'benchmarks/gpu_session.sh', str(out)], cwd=ROOT,
        env={**os.environ, 'REHEARSE': '1', 'PATH': path, **environment},
        capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = (out / 'steps.jsonl').read_text().splitlines()
    with tarfile.open(out / 'results.tar.gz') as archive:
        return [json.loads(line) for line in lines], archive.getnames()


def test_steps_for_which_no_time_is_left_are_skipped(tmp_path):
    steps, _ = run_session(tmp_path, LIMIT='0')
    assert len(steps) > 15
    assert {step['code'] for step in steps} == {'skipped'}
    # The most valuable first.
    names = [step['step'] for step in steps]
    assert names.index('train-bf16-triton') < names.index('others')


def test_commands_of_all_steps_are_valid(tmp_path):
    run = subprocess.run(
        ['bash', 'benchmarks/gpu_session.sh', str(tmp_path)], cwd=ROOT,
        env={**os.environ, 'PRINT': '1'}, capture_output=True, text=True,
        check=True)
    parsed = 0
    for line in run.stdout.splitlines():
        words = line.split()
        if 'benchmarks.backbone' not in words:
            continue
        args = backbone.parse_args(words[words.index('-m') + 2:])
        choice = words[2].removeprefix('HRFORMER_MM_KERNELS=')
        assert choice in triton.CHOICES, line
        assert [case for case, _ in backbone.cases(args)], line
        if args.mode == ['train']:
            assert not set(INFERENCE_ONLY).intersection(args.subjects), line
        parsed += 1
    assert parsed > 15


@pytest.mark.slow
def test_a_rehearsal_runs_every_step(tmp_path):
    pytest.importorskip('mmpose')
    pytest.importorskip('timm')
    steps, files = run_session(tmp_path, LIMIT='3600', SCALE='10')
    assert {step['step'] for step in steps if step['code'] != '0'} == set()
    for step in steps:
        assert f'results/{step["step"]}.log' in files
        if step['step'].startswith(('train', 'forward', 'small', 'others')):
            assert f'results/{step["step"]}/results.json' in files
