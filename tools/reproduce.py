# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Reproduce a result of the paper, from pretraining to test.

Prints all commands for a config, the output of each and its cost; --run
executes them. Steps whose output exists are skipped and trainings resume, so
the same command continues after an interruption.
"""
from argparse import Namespace

from hrformer_mm.utils import cli
from hrformer_mm.zoo import reproduce

EXAMPLES = """examples:
  python tools/reproduce.py hrformer_b_coco_384x288
  python tools/reproduce.py hrformer_b_cityscapes_512x1024_w15 --gpus 4 --run
  python tools/reproduce.py configs/pose/hrformer_t_coco_256x192.py \\
      --imagenet /data/imagenet --data-root /data/coco --from-scratch
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument('config', help='name or path of a config')
    parser.add_argument(
        '--gpus', type=int, default=8, help='number of GPUs (default: 8)')
    parser.add_argument(
        '--run',
        action='store_true',
        help='execute the commands instead of only printing them')
    parser.add_argument(
        '--work-dir',
        default='work_dirs',
        help='parent of the folders of trainings (default: work_dirs)')
    parser.add_argument(
        '--data-root',
        help='folder of the dataset (default: that of the config)')
    parser.add_argument(
        '--imagenet', help='folder of ImageNet, for pretraining')
    parser.add_argument(
        '--from-scratch',
        action='store_true',
        help='pretrain even if released weights are found')
    time = parser.add_mutually_exclusive_group()
    time.add_argument(
        '--measure',
        action='store_true',
        help='time training steps on this machine, with the data of the '
        'config, to estimate GPU hours')
    time.add_argument(
        '--step-seconds',
        type=float,
        metavar='S',
        help='duration of a training step, to estimate GPU hours')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    plan = reproduce.make_plan(args.config, args.gpus, args.work_dir,
                               args.data_root, args.imagenet,
                               args.from_scratch, args.cfg_options)
    seconds = args.step_seconds
    if seconds is not None and not seconds > 0:
        raise ValueError(f'--step-seconds must be more than 0, got {seconds}')
    if args.measure:
        seconds = reproduce.measure_step(plan, args.data_root,
                                         args.cfg_options)
    print(reproduce.describe_plan(plan, seconds))
    if args.run:
        reproduce.run_plan(plan)


if __name__ == '__main__':
    main()
