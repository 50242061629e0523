# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Compare the speed of HRFormer with MMPose's and other backbones.

The outputs of every network are compared with those of the first one, then
timing is interleaved. Results are saved in --out/results.json, from which an
interrupted run continues. benchmarks/backbone/README.md explains the table.
"""
import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from hrformer_mm.__main__ import positive
from hrformer_mm.core import ARCHS
from hrformer_mm.core.kernels import triton
from hrformer_mm.utils.cli import EPILOG, one_line_errors
from hrformer_mm.zoo.benchmark_table import benchmark_table

from . import measure, report
from .subjects import DTYPES, MODES, RUNTIMES, SUBJECTS, Case

SEG, POSE, CLS = (512, 1024), (256, 192), (224, 224)
INFERENCE = ('mmpose', 'ours', 'optimized')
ON_CPU = ('mmpose', 'ours', 'optimized', 'optimized-bf16', *RUNTIMES)
# Cases and networks of the README's tables.
PRESETS: dict[str, Any] = {
    'cpu': [
        *((Case(arch, POSE, 4, 'forward'),
           (*INFERENCE, 'optimized-bf16', 'hrnet_w32'))
          for arch in ('base', 'small')),
        *((Case(arch, POSE, 4, 'train'), ('mmpose', 'ours'))
          for arch in ('base', 'small')),
    ],
    # Runtimes on CPUs, for all tasks.
    'runtimes': [
        *((Case(arch, POSE, 4, 'forward', heatmaps=True), ON_CPU)
          for arch in ('small', 'base')),
        (Case('small', SEG, 1, 'forward'), ON_CPU),
        (Case('small', CLS, 4, 'forward'), ON_CPU),
    ],
    # How they depend on the batch and on threads.
    'runtimes-grid': [
        (Case(arch, POSE, batch, 'forward', threads=threads, heatmaps=True),
         ON_CPU)
        for threads in (1, 2) for arch in ('small', 'base')
        for batch in (1, 4, 16)
    ],
    'memory': [(Case('base', (384, 288), 2, 'train'),
                ('ours', 'ours-cp-ffn', 'ours-cp-full'))],
    'sizes': [(Case('small', size, 1, 'forward'), ('ours', ))
              for size in (POSE, (384, 288), (512, 512), SEG, (1024, 1024),
                           (1024, 2048))],
    'gpu': [
        (Case('base', POSE, 64, 'train', 'bf16'),
         ('mmpose', 'ours', 'compiled', 'hrnet_w48')),
        (Case('base', POSE, 64, 'forward', 'bf16'),
         (*INFERENCE, 'optimized-compiled', 'optimized-graphs')),
        (Case('base', POSE, 1, 'forward', 'bf16'),
         (*INFERENCE, 'optimized-graphs')),
        (Case('base', SEG, 2, 'train', 'bf16', 15), ('mmpose', 'ours')),
        (Case('base', SEG, 2, 'forward', 'bf16', 15),
         (*INFERENCE, 'optimized-graphs')),
        (Case('base', (384, 288), 32, 'train', 'bf16'),
         ('ours', 'ours-cp-ffn', 'ours-cp-full')),
        *((Case('base', size, 1, 'forward', 'bf16'), ('ours', ))
          for size in (POSE, (384, 288), SEG, (1024, 1024), (1024, 2048))),
    ],
}


def image_size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    try:
        return positive(height), positive(width)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not HEIGHTxWIDTH, such as 256x192')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.backbone', description=__doc__,
        epilog=EPILOG)
    parser.add_argument(
        '--preset', choices=PRESETS, nargs='+',
        help='run the cases of the README; the flags below are ignored')
    parser.add_argument(
        '--arch', nargs='+', choices=list(ARCHS), default=['small'],
        help='sizes of HRFormer (default: small)')
    parser.add_argument(
        '--size', nargs='+', type=image_size, default=[POSE],
        metavar='HEIGHTxWIDTH', help='image sizes (default: 256x192)')
    parser.add_argument(
        '--batch', nargs='+', type=positive, default=[4],
        help='batch sizes (default: 4)')
    parser.add_argument(
        '--mode', nargs='+', choices=MODES, default=['forward'],
        help='inference, or forward and backward pass (default: forward)')
    parser.add_argument(
        '--dtype', nargs='+', choices=list(DTYPES), default=['fp32'],
        help='precision (default: fp32); half precision uses autocast, as in '
        'training')
    parser.add_argument(
        '--window', nargs='+', type=positive, default=[7],
        help='window sizes of attention (default: 7)')
    parser.add_argument(
        '--threads', nargs='+', type=positive, default=[None],
        help='numbers of threads on CPUs (default: that of PyTorch)')
    parser.add_argument(
        '--heatmaps', action='store_true',
        help='with the 1x1 convolution of pose estimation, from the map of '
        'highest resolution to 17 heatmaps (default: four maps)')
    parser.add_argument(
        '--subjects', nargs='+', choices=list(SUBJECTS),
        default=['mmpose', 'ours'],
        help='networks; ratios are relative to the first one (default: '
        'mmpose ours)')
    parser.add_argument(
        '--show', type=Path, metavar='RESULTS.JSON',
        help='print the table of an earlier run and exit')
    parser.add_argument(
        '--profile', action='store_true',
        help='print the time of each operation instead of comparing')
    parser.add_argument(
        '--repeats', type=int, default=9,
        help='number of rounds (default: 9)')
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        help='device (default: cuda if available, else cpu)')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/benchmark'),
        help='folder for results.json and sizes.png (default: %(default)s)')
    args = parser.parse_args(argv)  # yapf: disable
    if args.repeats < 2:
        parser.error('--repeats must be at least 2 to compute a spread, got '
                     f'{args.repeats}')
    return args


def cases(args: argparse.Namespace) -> Iterator[tuple[Case, Sequence[str]]]:
    if args.preset:
        for name in args.preset:
            yield from PRESETS[name]
        return
    grid = itertools.product(args.arch, args.size, args.batch, args.mode,
                             args.dtype, args.window, args.threads,
                             [args.heatmaps])
    for values in grid:
        yield Case(*values), args.subjects


def alone(function: Callable, *args: Any) -> Any:
    """Call a function in a new process and return its result.

    In a shared process, memory that earlier cases left to the allocator
    determines how often it requests pages from the system, which takes a
    fifth of the time on CPUs.
    """
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def run(args: argparse.Namespace, device: torch.device) -> list[dict]:
    head = dict(
        report.describe_machine(device),
        command=' '.join(['python', '-m', 'benchmarks.backbone',
                          *(args.argv or sys.argv[1:])]),
        repeats=args.repeats, kernels=triton.default)
    results = report.Results(args.out / 'results.json', head)
    limits = {}
    todo = list(cases(args))
    for case, names in track(
            todo, 'benchmark', console=Console(stderr=True)):
        if results.done(case, names):
            continue
        if case.dtype not in limits:
            limits[case.dtype] = measure.Limits.measure(
                DTYPES[case.dtype], device)
        results.add(
            alone(measure.compare, case, names, device, args.repeats,
                  limits[case.dtype]))
    return results.entries


@one_line_errors
def main(argv: Sequence[str] | None = None):
    args = parse_args(argv)
    if args.show:
        print(benchmark_table(args.show))
        return
    args.argv = argv
    device = torch.device(args.device)
    if args.profile:
        profiles = {}
        args.out.mkdir(parents=True, exist_ok=True)
        for case, names in cases(args):
            found = alone(measure.operations, case, names, device)
            print(f'{case}\n\n{report.operation_table(found)}')
            profiles[str(case)] = found
            (args.out / 'profile.json').write_text(
                json.dumps(profiles, indent=1), encoding='utf-8')
        return
    entries = run(args, device)
    print(report.table(entries))
    print(report.growth(entries))
    machine = report.describe_machine(device)
    title = f'{machine["device"]}, torch {machine["torch"]}'
    if report.plot(entries, args.out / 'sizes.png', title):
        print(f'\nplot: {args.out / "sizes.png"}')
    print(f'results: {args.out / "results.json"}')


if __name__ == '__main__':
    main()
