# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Evaluate a checkpoint on the test data of its config."""
from argparse import Namespace

from hrformer_mm.engine import train as training
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/test.py CONFIG work_dirs/NAME/best_coco_AP_epoch_210.pth
  python tools/test.py CONFIG CHECKPOINT --out metrics.json --dump all.pkl
  python tools/test.py configs/seg/... CHECKPOINT --tta   # scales and flips
  bash tools/dist_test.sh CONFIG CHECKPOINT 8             # on 8 GPUs
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.make_parser(__doc__, EXAMPLES)
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument('--out', help='write the metrics into this json file')
    parser.add_argument(
        '--dump', help='write all predictions into this pkl file')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test with the scales and flips of the config's tta_pipeline")
    cli.add_run_flags(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    cfg = training.config_to_run(args)
    if args.tta:
        training.use_tta(cfg)
    if args.dump:
        training.dump_predictions(cfg, args.dump)
    training.test(cfg, args.checkpoint, args.out)


if __name__ == '__main__':
    main()
