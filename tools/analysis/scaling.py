# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Say what rows cost on several GPUs, and how their recipes change there.

What is exchanged is counted from the configs. How fast GPUs and networks are
is assumed: give the figures of yours. With --measure a step of each row is
timed on this machine.
"""
import time
from argparse import Namespace
from typing import Any, Dict, Sequence

import torch

from hrformer_mm import cli, scaling, zoo

EXAMPLES = """examples:
  python tools/analysis/scaling.py
  python tools/analysis/scaling.py hrformer_b_coco_384x288 --gpus 4 \\
      --gigabytes 20 --microseconds 50 --step-seconds 0.4
  python tools/analysis/scaling.py hrformer_t_imagenet_224 --measure
"""

ROWS = ('hrformer_s_coco_256x192', 'hrformer_b_coco_384x288',
        'hrformer_s_cityscapes_512x1024', 'hrformer_b_cityscapes_512x1024_w15',
        'hrformer_t_imagenet_224', 'hrformer_b_imagenet_224')


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'rows', nargs='*', default=ROWS, help='names of rows (default: six)')
    several: Dict[str, Any] = dict(type=float, nargs='+')
    parser.add_argument(
        '--tflops', **several, default=[25., 100.],
        help='assumed speed of a GPU, in 1e12 operations a second (default: '
        '25 100)')  # yapf: disable
    parser.add_argument(
        '--step-seconds', type=float,
        help='what a step takes on one GPU of yours, as --dry-run of '
        'tools/train.py measures it; instead of --tflops')  # yapf: disable
    parser.add_argument(
        '--gpus', type=int, nargs='+', default=[8, 32], help='default: 8 32')
    parser.add_argument(
        '--gigabytes', **several, default=[150., 20.],
        help='assumed bandwidth for each of --gpus, in 1e9 bytes a second: '
        'of NVLink in one machine, of InfiniBand between several (default: '
        '150 20)')  # yapf: disable
    parser.add_argument(
        '--microseconds', **several, default=[20., 50.],
        help='assumed duration of the smallest exchange, for each of --gpus '
        '(default: 20 50)')  # yapf: disable
    parser.add_argument(
        '--measure',
        action='store_true',
        help='time steps of 2 samples in full precision here, instead')
    return parser.parse_args(argv)


def measure(rows: Sequence[str]):
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    print(f'{device}, {torch.get_num_threads()} thread(s), torch '
          f'{torch.__version__}, steps of 2 samples')
    for name in rows:
        cfg = zoo.get_config(name)
        model = zoo.build_model(cfg, device)
        shape, began = scaling.training_size(cfg), time.time()
        seconds = scaling.measure(model, shape, batch=2)
        print(f'{name:40} {shape[0]} x {shape[1]:<5} {seconds:.3g} s '
              f'(in all {time.time() - began:.0f} s)', flush=True)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    if args.measure:
        return measure(args.rows)
    if not len(args.gpus) == len(args.gigabytes) == len(args.microseconds):
        raise ValueError('--gigabytes and --microseconds need as many values '
                         'as --gpus')
    clusters = [
        scaling.Cluster(n, gb * 1e9, us * 1e-6) for n, gb, us in zip(
            args.gpus, args.gigabytes, args.microseconds)
    ]
    rates = [tera * 1e12 for tera in args.tflops]
    print(scaling.efficiency_table(args.rows, clusters, rates,
                                   args.step_seconds))
    print(scaling.recipe_table(args.rows, args.gpus))


if __name__ == '__main__':
    main()
