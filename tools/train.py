# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Train a config of configs/pose, configs/seg or configs/cls."""
from argparse import Namespace

from hrformer_mm.engine import train as training
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/train.py configs/pose/hrformer_s_coco_256x192.py
  python tools/train.py CONFIG --resume             # after a crash
  python tools/train.py CONFIG --data-root /data/coco \\
      --cfg-options train_dataloader.batch_size=16 randomness.seed=0
  python tools/train.py CONFIG --dry-run            # check without training
  bash tools/dist_train.sh CONFIG 8                 # on 8 GPUs
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.dataset_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint; without a value (or with '
        '"auto"), from the last one in the work dir')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in mixed precision')
    parser.add_argument(
        '--no-validate',
        action='store_true',
        help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the ratio of the total batch size '
        'to auto_scale_lr.base_batch_size')
    parser.add_argument(
        '--tensorboard',
        action='store_true',
        help='also write TensorBoard logs (view: tensorboard --logdir '
        'work_dirs)')
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='do not train: check config, data, weights and first steps, '
        'estimate memory, hours and disk space, and exit with 1 if the run '
        'would fail')
    parser.add_argument(
        '--quick',
        action='store_true',
        help='with --dry-run: check only config, paths and weights, in '
        'seconds')
    cli.add_run_flags(parser)
    args = parser.parse_args(argv)
    if args.quick and not args.dry_run:
        parser.error('--quick is an option of --dry-run')
    return args


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    cfg = training.config_to_run(args)
    if args.amp:
        training.use_amp(cfg)
    if args.auto_scale_lr:
        training.scale_lr(cfg)
    if args.no_validate:
        training.skip_validation(cfg)
    if args.tensorboard:
        training.use_tensorboard(cfg)
    training.set_resume(cfg, args.resume)
    if args.dry_run:
        from hrformer_mm.engine.preflight import preflight
        raise SystemExit(preflight(cfg, quick=args.quick))
    training.train(cfg)


if __name__ == '__main__':
    main()
