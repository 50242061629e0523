# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check the data of a config: count samples and report all errors.

Reads images, label maps and annotations, and compares them with each other
and with the config. Datasets inside wrappers are checked one by one. Exits
with code 1 if there is an error; warnings and datasets of an unsupported
format do not count as errors.
"""
from argparse import Namespace
from pathlib import Path

from hrformer_mm.engine import train as training
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/check_dataset.py configs/seg/hrformer_s_ade20k_520x520.py
  python tools/check_dataset.py CONFIG --data-root /data/cityscapes
  python tools/check_dataset.py CONFIG --limit 200      # a quick look
  python tools/check_dataset.py configs/pose/custom_keypoints.py \\
      --data-root /data/cats --out-dir work_dirs/cats   # with pictures
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.dataset_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--limit',
        type=int,
        help='number of samples to check in each dataset (default: all)')
    parser.add_argument(
        '--workers',
        type=int,
        default=8,
        help='number of threads that read files (default: 8)')
    parser.add_argument(
        '--out-dir',
        help='write a sheet of annotated samples for each data loader into '
        'this folder')
    parser.add_argument(
        '--force', action='store_true', help='overwrite existing sheets')
    return parser.parse_args(argv)


def write_sheets(cfg, loaders, outputs):
    from hrformer_mm.datasets.validation.contact_sheet import contact_sheet
    for loader in loaders:
        sheet = contact_sheet(cfg, loader)
        if sheet is not None:
            outputs.write_image(f'{loader}.png', sheet)
            print(f'{outputs.folder / loader}.png shows samples')


@cli.one_line_errors
def main(argv=None):
    from hrformer_mm.apis.outputs import Outputs
    from hrformer_mm.datasets.validation.common import (
        check_datasets,
        describe_summary,
        distinct_loaders,
    )
    args = parse_args(argv)
    cfg = training.config_for(args)
    outputs = args.out_dir and Outputs(Path(args.out_dir), args.force)
    if outputs:
        outputs.check([f'{x}.png' for x in distinct_loaders(cfg)], ())
    summaries = check_datasets(cfg, args.limit, args.workers)
    for key, summary in summaries.items():
        print(f'{key}: {summary.dataset}')
        for line in describe_summary(summary):
            print(f'  {line}')
    if outputs:
        write_sheets(cfg, distinct_loaders(cfg), outputs)
    if any(summary.problems for summary in summaries.values()):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
