# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train a row of configs/pose, configs/seg or configs/cls."""
import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter

from hrformer_mm import cli, training

EXAMPLES = """examples:
  python tools/train.py configs/pose/hrformer_s_coco_256x192.py
  python tools/train.py CONFIG --resume             # after a crash
  python tools/train.py CONFIG --data-root /data/coco --amp \\
      --cfg-options train_dataloader.batch_size=16 randomness.seed=0
  bash tools/dist_train.sh CONFIG 8                 # on 8 GPUs

"""


def parse_args(argv=None) -> Namespace:
    parser = ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES + cli.EPILOG,
        formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--work-dir',
        help='where logs and checkpoints go (default: work_dirs/NAME)')
    parser.add_argument(
        '--data-root',
        help="folder of the data set, instead of the config's data_root")
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or without a value (or with auto) '
        'from the last one in the work dir')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision, if the config does not yet')
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='do not evaluate while training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by your batch over the recipe's "
        '(auto_scale_lr.base_batch_size)')
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
    if args.amp:
        training.use_amp(cfg)
    if args.auto_scale_lr:
        training.scale_lr(cfg)
    if args.show or args.show_dir:
        training.show_predictions(cfg, args.show, args.show_dir,
                                  args.interval, args.wait_time)
    if args.no_validate:
        training.skip_validation(cfg)
    training.set_resume(cfg, args.resume)
    training.merge_options(cfg, args.cfg_options)
    training.train(cfg)


if __name__ == '__main__':
    main()
