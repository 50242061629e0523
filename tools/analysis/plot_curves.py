# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Plot loss, learning rate and metric of training runs.

Reads the logs that MMEngine writes to work dirs, also of running trainings.
"""
from argparse import Namespace
from pathlib import Path

from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/analysis/plot_curves.py work_dirs/quickstart_pose
  python tools/analysis/plot_curves.py work_dirs/a work_dirs/b \\
      --names 'lr 5e-4' 'lr 1e-3' --out-dir work_dirs/compared
  python tools/analysis/plot_curves.py work_dirs/a --keys loss acc_pose
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'runs', nargs='+', help='work dirs, or scalars.json files')
    parser.add_argument(
        '--names',
        nargs='+',
        help='names of the runs (default: names of their folders)')
    parser.add_argument(
        '--keys',
        nargs='+',
        help='values to plot (default: loss, lr, and AP, mIoU or top-1)')
    parser.add_argument(
        '--smooth',
        type=int,
        default=1,
        help='number of records to average for each point of a long curve '
        '(default: 1)')
    parser.add_argument(
        '--out-dir',
        default='.',
        help='folder for curves.png (default: current folder)')
    parser.add_argument(
        '--force', action='store_true', help='overwrite curves.png')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    from hrformer_mm.apis.outputs import Outputs
    from hrformer_mm.checkpoints.files import replacing
    from hrformer_mm.visualization.curves import (
        choose_keys,
        draw_curves,
        read_run,
    )
    args = parse_args(argv)
    names = args.names or [None] * len(args.runs)
    if len(names) != len(args.runs) or args.smooth < 1:
        raise ValueError(
            f'--names needs one name per run ({len(args.runs)}), got '
            f'{len(names)}, and --smooth must be at least 1, got '
            f'{args.smooth}')
    Outputs(Path(args.out_dir), args.force).check(['curves.png'], ())
    runs = [read_run(path, name) for path, name in zip(args.runs, names)]
    keys = choose_keys(runs, args.keys)
    figure = draw_curves(runs, dict(zip(keys, keys)), args.smooth)
    path = Path(args.out_dir) / 'curves.png'
    with replacing(path) as fresh:
        figure.savefig(fresh)
    print(f'{path} shows {", ".join(keys)} of '
          f'{", ".join(run.name for run in runs)}')


if __name__ == '__main__':
    main()
