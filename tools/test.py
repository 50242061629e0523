# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Evaluate a checkpoint on the test data of its row."""
import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from mmengine.fileio import dump

from hrformer_mm import cli, training

EXAMPLES = """examples:
  python tools/test.py CONFIG work_dirs/NAME/best_coco_AP_epoch_210.pth
  python tools/test.py CONFIG CHECKPOINT --out metrics.json --dump all.pkl
  python tools/test.py configs/seg/... CHECKPOINT --tta   # scales and flips
  bash tools/dist_test.sh CONFIG CHECKPOINT 8             # on 8 GPUs

"""


def parse_args(argv=None) -> Namespace:
    parser = ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES + cli.EPILOG,
        formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument(
        '--work-dir', help='where logs go (default: work_dirs/NAME)')
    parser.add_argument(
        '--data-root',
        help="folder of the data set, instead of the config's data_root")
    parser.add_argument('--out', help='write the metrics into this json file')
    parser.add_argument(
        '--dump', help='write all predictions into this pkl file')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test with the scales and flips of the config's tta_pipeline")
    cli.add_common(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = training.read_config(args.config)
    cfg.launcher = args.launcher
    training.set_work_dir(cfg, args.work_dir)
    if args.data_root:
        training.set_data_root(cfg, args.data_root)
    if args.show or args.show_dir:
        training.show_predictions(cfg, args.show, args.show_dir,
                                  args.interval, args.wait_time)
    training.merge_options(cfg, args.cfg_options)
    if args.tta:
        training.use_tta(cfg)
    if args.dump:
        training.dump_predictions(cfg, args.dump)
    metrics = training.test(cfg, args.checkpoint)
    if args.out and os.environ.get('RANK', '0') == '0':
        dump(metrics, args.out, file_format='json')


if __name__ == '__main__':
    main()
