# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Evaluate a checkpoint or an exported network on the test data."""
from argparse import Namespace
from functools import partial

from mmengine.logging import print_log

from hrformer_mm.deploy.backends import open_network
from hrformer_mm.deploy.runtimes import plug_in
from hrformer_mm.engine import train as training
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/test.py CONFIG work_dirs/NAME/best_coco_AP_epoch_210.pth
  python tools/test.py CONFIG CHECKPOINT --out metrics.json --dump all.pkl
  python tools/test.py configs/seg/... CHECKPOINT --tta   # scales and flips
  python tools/test.py CONFIG network.xml   # of tools/export.py
  bash tools/dist_test.sh CONFIG CHECKPOINT 8             # on 8 GPUs
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.dataset_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'checkpoint',
        help='path or URL of the checkpoint, or a file of tools/export.py '
        '(.onnx, .xml)')
    parser.add_argument('--out', help='write the metrics into this json file')
    parser.add_argument(
        '--dump', help='write all predictions into this pkl file')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test with the scales and flips of the config's tta_pipeline")
    cli.add_backend(parser)
    cli.add_run_flags(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    cfg = training.config_to_run(args)
    session, note = open_network(cfg, args.checkpoint, args.backend,
                                 args.precision)
    print_log(note)
    prepare = partial(plug_in, session=session) if session else None
    if args.tta:
        training.use_tta(cfg)
    if args.dump:
        training.dump_predictions(cfg, args.dump)
    training.test(cfg, args.checkpoint, args.out, prepare)


if __name__ == '__main__':
    main()
