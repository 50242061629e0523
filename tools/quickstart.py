# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train an HRFormer in minutes, evaluate it and draw its predictions.

Without --data-root synthetic data is generated in the format of the real
dataset. Run the same command again to continue an interrupted quickstart; a
finished one is kept, and the next one gets a new folder.
"""
import signal
import sys
from argparse import Namespace
from importlib import import_module

from hrformer_mm.utils import cli
from hrformer_mm.zoo import TASKS

EXAMPLES = """examples:
  bash tools/quickstart.sh                          # pose, some minutes
  bash tools/quickstart.sh --task seg
  bash tools/quickstart.sh --epochs 20              # better, longer
  bash tools/quickstart.sh --data-root /data/coco --train-images 3000
  bash tools/quickstart.sh --train-images 64 --val-images 8 --epochs 1 \\
      --cfg-options train_dataloader.num_workers=0
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES, prog='quickstart')
    parser.add_argument(
        '--task', choices=TASKS, default='pose', help='default: pose')
    parser.add_argument(
        '--data-root',
        help='train on this real dataset instead of synthetic data, in the '
        'layout of COCO (pose, det), Cityscapes (seg) or ImageNet (cls)')
    parser.add_argument(
        '--work-dir',
        help='folder for logs, checkpoints and pictures (default: '
        'work_dirs/quickstart_TASK)')
    parser.add_argument('--epochs', type=int, help='number of epochs')
    parser.add_argument(
        '--train-images',
        type=int,
        help='number of images to generate, or to use of a real dataset')
    parser.add_argument(
        '--val-images',
        type=int,
        help='number of images to generate for evaluation')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of data and training (default: 0)')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    from hrformer_mm.quickstart.runner import run
    task = import_module(f'hrformer_mm.quickstart.{args.task}').TASK
    images = None
    if (args.train_images, args.val_images) != (None, None):
        images = tuple(
            usual if asked is None else asked
            for asked, usual in zip((args.train_images, args.val_images),
                                    task.images))
    try:
        run(task, args.data_root, args.work_dir, args.epochs, images,
            args.seed, args.cfg_options)
    except (KeyboardInterrupt, SystemExit) as stop:
        print('\nstopped; the same command continues from the last checkpoint',
              file=sys.stderr)
        # The exit code of shells for the signal; on SIGTERM the training
        # exits with its own.
        raise SystemExit(getattr(stop, 'code', 128 + signal.SIGINT)) from None


if __name__ == '__main__':
    main()
