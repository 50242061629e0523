# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train a small model for long: memory must not grow, nor steps slow down.

Ends with code 1 if one of them does.
"""
from argparse import Namespace

from hrformer_mm import cli

EXAMPLES = """examples:
  python tools/soak.py                    # pose, a few minutes on one core
  python tools/soak.py --task seg --iters 10000
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--task', choices=['pose', 'seg', 'cls'], default='pose')
    parser.add_argument(
        '--iters', type=int, default=2000, help='steps (default: 2000)')
    parser.add_argument(
        '--work-dir',
        help='an empty folder for data, log and checkpoints (default: '
        'work_dirs/soak_TASK)')
    parser.add_argument(
        '--growth',
        type=float,
        default=0.02,
        help='of memory, that is accepted after a tenth of the steps '
        '(default: 0.02, which is 2 %%)')
    parser.add_argument(
        '--slowdown',
        type=float,
        default=0.2,
        help='of a step, that is accepted (default: 0.2; on a machine that '
        'does nothing else it is near 0)')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    from hrformer_mm.soak import soak
    report = soak(args.task, args.work_dir or f'work_dirs/soak_{args.task}',
                  args.iters, args.cfg_options)
    print(report)
    raise SystemExit(
        report.growth > args.growth or report.slowdown > args.slowdown)


if __name__ == '__main__':
    main()
