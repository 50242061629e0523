# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check a row: it must learn a handful of images by heart.

Trains from scratch, without augmentation, and evaluates on the same images.
Exits with code 1 if the metric stays below the target.
"""
from argparse import Namespace
from pathlib import Path

from hrformer_mm import cli

EXAMPLES = """example, on four images in a COCO file of their own:
  python tools/overfit.py configs/pose/hrformer_t_coco_256x192.py \\
      --data-root data/coco_mini --cfg-options \\
      train_dataloader.dataset.ann_file=person_keypoints.json \\
      train_dataloader.dataset.data_prefix.img=images/
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--work-dir',
        help='a new folder for the results (default: '
        'work_dirs/overfit_NAME)')
    parser.add_argument(
        '--iters', type=int, default=100, help='default: 100')
    parser.add_argument(
        '--batch-size', type=int, default=12, help='default: 12')
    parser.add_argument('--lr', type=float, default=1e-3, help='default: 1e-3')
    parser.add_argument(
        '--target', type=float, help='least metric for exit code 0')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    from hrformer_mm.overfit import overfit
    work_dir = args.work_dir or f'work_dirs/overfit_{Path(args.config).stem}'
    if Path(work_dir).exists() and any(Path(work_dir).iterdir()):
        raise ValueError(f'{work_dir} is not empty; give a new --work-dir')
    report = overfit(args.config, work_dir, args.data_root, args.iters,
                     args.batch_size, args.lr, args.cfg_options)
    target = report['target'] if args.target is None else args.target
    print(f"{report['metric']} {report['value']:.3f} on the training images "
          f"after {args.iters} iterations, target {target}; "
          f"loss {report['loss']:.4g}; see {work_dir}/overfit.json")
    raise SystemExit(report['value'] < target)


if __name__ == '__main__':
    main()
