# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Measure accuracy and speed of trained networks in PyTorch and OpenVINO.

Takes the last checkpoint of each run of a study, exports it for OpenVINO,
evaluates it in float32, bf16 and int8 by ``tools/test.py``, and times the
networks in turns on the same images. int8 is calibrated with validation
images and costs at most half a point, as ``tools/export.py`` does it. Writes
one JSON file per run; a run whose file exists is skipped.
"""
import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy import ndarray

from hrformer_mm.deploy import export
from hrformer_mm.deploy.quantize import Validation
from hrformer_mm.deploy.runtimes import Session, check_packages
from hrformer_mm.engine.run_config import set_data_root
from hrformer_mm.engine.train import read_config
from hrformer_mm.tasks import get_task
from hrformer_mm.utils.cli import one_line_errors

from ..backbone.measure import time_in_turns
from ..backbone.report import describe_machine
from .run import HERE, ROOT, Trial, check_call, list_trials, write_result

RESULTS = HERE / 'precisions'
# Names in the results: file to evaluate, and precision of OpenVINO.
SUBJECTS = {'torch': ('checkpoint', None), 'openvino': ('network', 'fp32'),
            'openvino-bf16': ('network', 'bf16'),
            'openvino-int8': ('int8', None)}  # yapf: disable
OPEN_SHAPE = (160, 224)  # of the check of segmentation, which takes any size
CPU = torch.device('cpu')


def last_checkpoint(work_dir: Path) -> Path:
    """Return the checkpoint that a finished training left.

    Raises:
        FileNotFoundError: If there is none.
    """
    note = work_dir / 'last_checkpoint'
    if not note.is_file():
        raise FileNotFoundError(f'{work_dir} has no trained network: run '
                                'python -m benchmarks.real_data.run first')
    # The folder may have been moved since.
    return work_dir / Path(note.read_text('utf-8').strip()).name


def export_file(config: Path, checkpoint: Path, out: Path,
                options: Sequence[str]) -> str:
    """Export by ``tools/export.py`` and return what it prints.

    Raises:
        ValueError: If int8 costs too much.
        RuntimeError: If it fails for another reason; the message names the
            log.
    """
    done = subprocess.run([
        sys.executable, str(ROOT / 'tools/export.py'), str(config),
        str(checkpoint), '--format', 'openvino', '--dynamic', '--force',
        '--out', str(out), *options
    ], capture_output=True, text=True)  # yapf: disable
    log = out.with_suffix('.log')
    log.write_text(done.stdout + done.stderr, 'utf-8')
    if done.returncode and '--max-drop' in done.stderr:
        raise ValueError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RuntimeError(f'exit code {done.returncode}; see {log}')
    return done.stdout


def export_files(config: Path, checkpoint: Path, folder: Path,
                 samples: int) -> tuple[dict[str, Path], list[str]]:
    """Write the files of OpenVINO; return them with notes about int8.

    Without int8, if it costs too much.
    """
    files = dict(checkpoint=checkpoint, network=folder / 'network.xml')
    task = get_task(read_config(str(config))).name
    shape = [] if task != 'seg' else ['--shape', *map(str, OPEN_SHAPE)]
    export_file(config, checkpoint, files['network'], shape)
    path = folder / 'int8.xml'
    try:
        printed = export_file(config, checkpoint, path, [
            *shape, '--precision', 'int8', '--calibrate', str(config),
            '--samples', str(samples)])  # yapf: disable
    except ValueError as error:
        return files, [str(error)]
    notes = [line for line in printed.splitlines() if ' in int8 ' in line]
    return dict(files, int8=path), notes


def evaluate(config: Path, weights: Path, precision: str | None, folder: Path,
             metrics: Sequence[str]) -> dict[str, float]:
    """Evaluate a checkpoint or a file of OpenVINO by ``tools/test.py``."""
    out = folder / 'metrics.json'
    chosen = [] if precision is None else ['--precision', precision]
    check_call([
        sys.executable, str(ROOT / 'tools/test.py'), str(config),
        str(weights), '--work-dir', str(folder / 'test'), '--out', str(out),
        *chosen
    ], folder / 'output.log')  # yapf: disable
    found = {key.rpartition('/')[2]: value
             for key, value in json.loads(out.read_text('utf-8')).items()}
    return {key: found[key] for key in metrics if key in found}


def networks(cfg: Config, files: Mapping[str, Path]
             ) -> dict[str, Callable[[ndarray], Any]]:
    """Open the networks with the same number of threads."""
    model, _ = export.load(cfg, str(files['checkpoint']))
    network = export.Network(model, get_task(cfg).name, False).eval()

    @torch.inference_mode()
    def run_torch(images: ndarray) -> Any:
        return network(torch.from_numpy(images))

    found: dict[str, Callable[[ndarray], Any]] = dict(torch=run_torch)
    for name, (file, precision) in SUBJECTS.items():
        if name != 'torch' and file in files:
            found[name] = Session(files[file], 'openvino', precision,
                                  torch.get_num_threads())
    return found


def measure_speed(runs: Mapping[str, Callable[[ndarray], Any]],
                  images: ndarray, repeats: int) -> dict[str, dict]:
    """Time the networks in turns on a batch; ratios are to the first one."""
    steps = {name: lambda run=run: run(images) for name, run in runs.items()}
    times = time_in_turns(steps, CPU, repeats, warm=True)
    first = next(iter(times.values()))
    return {name: dict(
        images_per_second=len(images) / statistics.median(seconds),
        ratio=statistics.median(a / b for a, b in zip(first, seconds)))
            for name, seconds in times.items()}  # yapf: disable


def measure(trial: Trial, args: argparse.Namespace) -> dict[str, Any]:
    """Export, evaluate and time one trained network."""
    work_dir = args.work_dir / trial.name
    folder = work_dir / 'precisions'
    checkpoint = last_checkpoint(work_dir)
    folder.mkdir(exist_ok=True)
    cfg = read_config(str(ROOT / f'configs/{trial.config}.py'))
    set_data_root(cfg, str((args.data_root / trial.data).resolve()))
    config = folder / 'config.py'
    cfg.dump(config)
    cfg = read_config(str(config))
    files, notes = export_files(config, checkpoint, folder, args.samples)
    images = np.concatenate(Validation(cfg).images(args.batch))
    speeds = measure_speed(networks(cfg, files), images, args.repeats)
    subjects = {
        name: dict(
            speed,
            metrics=evaluate(config, files[SUBJECTS[name][0]],
                             SUBJECTS[name][1], folder, trial.metrics))
        for name, speed in speeds.items()}
    return dict(
        study=trial.study, config=trial.config, seed=trial.seed,
        split=trial.split, input=list(images.shape[2:]), batch=args.batch,
        samples=args.samples, subjects=subjects, notes=notes,
        command=f'python -m benchmarks.real_data.precisions {trial.study} '
        f'--data-root DATA --only {trial.name}',
        machine=describe_machine(CPU))  # yapf: disable


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('study', help='name in studies.yml, or all')
    add('--data-root', type=Path, required=True,
        help='folder that holds lspet/, camvid/, mouse_openfield/ and fly/')
    add('--only', default='*', help="pattern of names, such as 'hrnet*seed0'")
    add('--work-dir', type=Path, default=Path('work_dirs/real_data'),
        help='folder with the trained networks, that of '
        'benchmarks.real_data.run (default: %(default)s)')
    add('--results', type=Path, default=RESULTS,
        help='folder for one JSON file per run (default: precisions/ here)')
    add('--samples', type=int, default=300,
        help='images to calibrate int8 with (default: %(default)s)')
    add('--batch', type=int, default=4,
        help='images at once when timing (default: %(default)s)')
    add('--repeats', type=int, default=9,
        help='number of rounds when timing (default: %(default)s)')
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None):
    args = parse_args(argv)
    check_packages('onnx', 'onnxscript', 'openvino', 'nncf')
    args.results.mkdir(parents=True, exist_ok=True)
    for trial in list_trials(args.study, args.only):
        path = args.results / f'{trial.name}.json'
        if path.exists():
            print(f'{trial.name}: done before', flush=True)
            continue
        try:
            content = measure(trial, args)
        except RuntimeError as error:  # a test failed: not a wrong input
            raise SystemExit(f'error: {error}')
        write_result(path, content)
        for name, found in content['subjects'].items():
            print(f"{trial.name} {name}: {found['metrics']}, "
                  f"{found['ratio']:.2f} times as fast", flush=True)


if __name__ == '__main__':
    main()
