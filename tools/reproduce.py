# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""How to get a number of the paper: every command, from pretraining to test.

Prints the chain for a row, what each command makes, and what it costs; with
--run it does it. Steps whose file is there are left out and trainings resume,
so the same line continues after an interruption.
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
    parser.add_argument('row', help='name of a row, or path of its config')
    parser.add_argument('--gpus', type=int, default=8, help='default: 8')
    parser.add_argument(
        '--run', action='store_true', help='do it, not only print it')
    parser.add_argument(
        '--work-dir',
        default='work_dirs',
        help='where each training gets a folder (default: work_dirs)')
    parser.add_argument(
        '--data-root', help="folder of the dataset, instead of the row's")
    parser.add_argument(
        '--imagenet', help='folder of ImageNet, if weights are pretrained')
    parser.add_argument(
        '--from-scratch',
        action='store_true',
        help='pretrain even if released weights are found')
    time = parser.add_mutually_exclusive_group()
    time.add_argument(
        '--measure',
        action='store_true',
        help='time training steps on this machine, with the data of the row, '
        'to estimate GPU hours')
    time.add_argument(
        '--step-seconds',
        type=float,
        metavar='S',
        help='what a training step takes, to estimate GPU hours')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    plan = reproduce.make_plan(args.row, args.gpus, args.work_dir,
                               args.data_root, args.imagenet,
                               args.from_scratch, args.cfg_options)
    seconds = args.step_seconds
    if args.measure:
        seconds = reproduce.measure_step(plan, args.data_root,
                                         args.cfg_options)
    print(reproduce.describe(plan, seconds))
    if args.run:
        reproduce.run(plan)


if __name__ == '__main__':
    main()
