# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train the networks of a study under one budget and write their results.

Each run is trained by ``tools/train.py`` with ``--resume``, tested by
``tools/test.py`` from its last checkpoint, and writes one JSON file. A run
whose file exists is skipped, so the same command continues an interrupted
study.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from hrformer_mm import zoo
from hrformer_mm.engine.train import read_config
from hrformer_mm.utils.cli import one_line_errors
from hrformer_mm.utils.io import read_records
from hrformer_mm.visualization import curves
from hrformer_mm.zoo import flops

from ..backbone.report import describe_machine

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXAMPLES = """examples:
  python -m benchmarks.real_data.run lspet --data-root /data
  python -m benchmarks.real_data.run camvid --data-root /data --only 'hrnet*'
  python -m benchmarks.real_data.run all --data-root /data --dry-run
"""


class Trial(NamedTuple):
    """One training of a study."""
    study: str
    config: str  # below configs, without .py
    seed: int
    data: str  # folder below --data-root
    split: str
    metrics: Sequence[str]

    @property
    def name(self) -> str:
        return f'{Path(self.config).name}_seed{self.seed}'


def list_trials(study: str, only: str = '*') -> list[Trial]:
    """List the trials of a study, or of all, whose name matches a pattern.

    Raises:
        ValueError: If there is no such study, or no name matches.
    """
    studies = yaml.safe_load((HERE / 'studies.yml').read_text('utf-8'))
    if study != 'all' and study not in studies:
        raise ValueError(f'unknown study {study!r}; choose from '
                         f'{[*studies, "all"]}')
    names = list(studies) if study == 'all' else [study]
    trials = [
        Trial(name, run['config'], seed, studies[name]['data'],
              studies[name]['split'], studies[name]['metrics'])
        for name in names for run in studies[name]['runs']
        for seed in run['seeds']
    ]
    chosen = [t for t in trials if fnmatch(t.name, only)]
    if not chosen:
        raise ValueError(f'no trial matches {only!r}; there are '
                         f'{[t.name for t in trials]}')
    return chosen


def train_command(trial: Trial, data_root: str, work_dir: Path,
                  options: Sequence[str]) -> list[str]:
    return [
        sys.executable,
        str(ROOT / 'tools/train.py'),
        str(ROOT / f'configs/{trial.config}.py'), '--resume', '--work-dir',
        str(work_dir), '--data-root',
        os.path.join(data_root, trial.data), '--cfg-options',
        f'randomness.seed={trial.seed}', *options
    ]


def check_call(command: Sequence[str], log: Path):
    """Run a command and write its output to a log.

    Raises:
        RuntimeError: If it fails; the message names the log.
    """
    with log.open('a') as file:
        code = subprocess.run(command, stdout=file, stderr=file).returncode
    if code:
        raise RuntimeError(f'exit code {code}; see {log}; the same command '
                           'continues from the last checkpoint')


def seconds_of(work_dir: Path) -> float:
    """Sum the time of all logged training iterations."""
    total, last = 0., 0
    for log in curves.find_logs(work_dir):
        for record in read_records(log):
            if 'loss' in record and 'time' in record:
                done = record.get('iter', record.get('step', last))
                total += max(done - last, 0) * record['time']
                last = max(done, last)
    return total


def evaluations(work_dir: Path, metrics: Sequence[str]
                ) -> dict[str, list[Any]]:
    """Collect the validation metrics that training logged, by iteration."""
    points = curves.read_run(str(work_dir)).points
    return {
        key: [[at, round(value, 6)] for at, value in points[key]]
        for key in points if key.rpartition('/')[2] in (*metrics, 'loss')
    }


def test(trial: Trial, data_root: str, work_dir: Path,
         log: Path) -> dict[str, float]:
    """Evaluate the last checkpoint by ``tools/test.py``."""
    checkpoint = (work_dir / 'last_checkpoint').read_text('utf-8').strip()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'metrics.json'
        check_call([
            sys.executable,
            str(ROOT / 'tools/test.py'),
            str(ROOT / f'configs/{trial.config}.py'), checkpoint,
            '--work-dir', folder, '--data-root',
            os.path.join(data_root, trial.data), '--out',
            str(out)
        ], log)
        found = json.loads(out.read_text('utf-8'))
    return {
        key.rpartition('/')[2]: value
        for key, value in found.items()
        if key.rpartition('/')[2] in trial.metrics
    }


def result_of(trial: Trial, metrics: dict[str, float], work_dir: Path,
              options: Sequence[str]) -> dict[str, Any]:
    """Collect the settings and results of a finished trial."""
    cfg = read_config(str(ROOT / f'configs/{trial.config}.py'))
    size = zoo.input_size(trial.config)
    counted = flops.count(zoo.build_model(cfg), size)
    command = shlex.join([
        'python', '-m', 'benchmarks.real_data.run', trial.study, '--data-root',
        'DATA', '--only', trial.name,
        *(['--cfg-options', *options] if options else [])
    ])
    return dict(
        study=trial.study,
        config=trial.config,
        seed=trial.seed,
        split=trial.split,
        metrics=metrics,
        parameters=counted.parameters,
        macs=counted.total('macs'),
        input=list(size),
        budget={k: cfg.train_cfg[k] for k in ('max_epochs', 'max_iters')
                if k in cfg.train_cfg},
        batch_size=cfg.train_dataloader.batch_size,
        training_seconds=round(seconds_of(work_dir)),
        curves=evaluations(work_dir, trial.metrics),
        command=command,
        machine=describe_machine(torch.device(
            'cuda' if torch.cuda.is_available() else 'cpu')))  # yapf: disable


def write_result(path: Path, content: dict[str, Any]):
    fresh = path.with_suffix('.new')
    fresh.write_text(json.dumps(content, indent=1) + '\n', 'utf-8')
    os.replace(fresh, path)


def run_trial(trial: Trial, data_root: str, work_dir: Path, results: Path,
              options: Sequence[str]) -> dict[str, Any]:
    """Train, test and record one trial; continue it if it was interrupted."""
    work_dir = work_dir / trial.name
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / 'output.log'
    check_call(train_command(trial, data_root, work_dir, options), log)
    metrics = test(trial, data_root, work_dir, log)
    content = result_of(trial, metrics, work_dir, options)
    results.mkdir(parents=True, exist_ok=True)
    write_result(results / f'{trial.name}.json', content)
    return content


def missing(trials: Sequence[Trial], results: Path) -> Iterator[Trial]:
    for number, trial in enumerate(trials, 1):
        done = (results / f'{trial.name}.json').exists()
        state = 'done before' if done else 'running'
        print(f'[{number}/{len(trials)}] {trial.name}: {state}', flush=True)
        if not done:
            yield trial


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', help='name in studies.yml, or all')
    parser.add_argument(
        '--data-root',
        required=True,
        help='folder that holds lspet/, camvid/, mouse_openfield/ and fly/')
    parser.add_argument(
        '--only', default='*', help="pattern of names, such as 'hrnet*seed0'")
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/real_data'),
        help='folder for logs and checkpoints (default: %(default)s)')
    parser.add_argument(
        '--results',
        type=Path,
        default=HERE / 'results',
        help='folder for one JSON file per trial (default: results/ here)')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='print the training commands and exit')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='changes to every config; recorded in the results')
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None):
    args = parse_args(argv)
    trials = list_trials(args.study, args.only)
    if args.dry_run:
        for trial in trials:
            print(shlex.join(train_command(
                trial, args.data_root, args.work_dir / trial.name,
                args.cfg_options)))  # yapf: disable
        return
    for trial in missing(trials, args.results):
        try:
            result = run_trial(trial, args.data_root, args.work_dir,
                               args.results, args.cfg_options)
        except RuntimeError as error:  # a training failed: not a wrong input
            raise SystemExit(f'error: {error}')
        print(f"    {result['metrics']}", flush=True)


if __name__ == '__main__':
    main()
