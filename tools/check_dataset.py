# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check the data of a row: count it, and name files that a run fails on.

Ends with code 1 if there is a problem.
"""
from argparse import Namespace

from hrformer_mm import cli, training

EXAMPLES = """examples:
  python tools/check_dataset.py configs/seg/hrformer_s_ade20k_520x520.py
  python tools/check_dataset.py CONFIG --data-root /data/cityscapes
  python tools/check_dataset.py CONFIG --limit 200      # a quick look

"""


def parse_args(argv=None) -> Namespace:
    parser = cli.make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--limit', type=int, help='samples of each data set to look at')
    parser.add_argument(
        '--workers', type=int, default=8, help='threads that read files')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    from hrformer_mm.datasets.check import check, describe
    args = parse_args(argv)
    cfg = training.read_config(args.config)
    if args.data_root:
        training.set_data_root(cfg, args.data_root)
    training.merge_options(cfg, args.cfg_options)
    summaries = check(cfg, args.limit, args.workers)
    for loader, summary in summaries.items():
        print(f'{loader}: {cfg[loader].dataset.type}')
        for line in describe(summary):
            print(f'  {line}')
    if any(summary.problems for summary in summaries.values()):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
