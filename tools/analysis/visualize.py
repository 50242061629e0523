# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Visualize the features of a trained model for an image.

streams.png shows the feature maps of all resolutions, attention.png the
attention of one position in its window at each, regions.png (segmentation)
the soft object regions of OCR.
"""
from argparse import Namespace
from pathlib import Path

from hrformer_mm.engine import train as training
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/analysis/visualize.py CONFIG CHECKPOINT street.jpg
  python tools/analysis/visualize.py CONFIG CHECKPOINT people.jpg \\
      --box 120 40 80 200 --at 0.5 0.3 --out-dir work_dirs/seen
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of its weights')
    parser.add_argument('image', help='path of an image')
    parser.add_argument(
        '--box',
        type=float,
        nargs=4,
        metavar=('X', 'Y', 'WIDTH', 'HEIGHT'),
        help='box of the person, for pose (default: the whole image)')
    parser.add_argument(
        '--at',
        type=float,
        nargs=2,
        default=(.5, .5),
        metavar=('RIGHT', 'DOWN'),
        help='query position, from 0 to 1 (default: the centre)')
    parser.add_argument(
        '--device',
        help='device, such as cuda:0 or cpu (default: the best available)')
    parser.add_argument(
        '--out-dir',
        default='work_dirs/visualize',
        help='folder for pictures (default: work_dirs/visualize)')
    parser.add_argument(
        '--force', action='store_true', help='overwrite pictures')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    from hrformer_mm.apis import feature_maps as views
    from hrformer_mm.apis import load_predictor
    from hrformer_mm.apis.outputs import Outputs
    from hrformer_mm.checkpoints.files import replacing
    args = parse_args(argv)
    cfg = training.read_config(args.config)
    training.merge_options(cfg, args.cfg_options)
    outputs = Outputs(Path(args.out_dir), args.force)
    outputs.check(['streams.png', 'attention.png', 'regions.png'], ())
    options = dict(device=args.device)
    if cfg.default_scope == 'mmpose':
        options['boxes'] = views.OneBox(args.box) if args.box else 'whole'
    predictor = load_predictor(cfg, args.checkpoint, **options)
    view = views.look(predictor, args.image)
    names = getattr(predictor, 'names', ())  # of classes
    for name, figure in views.draw_all(view, args.at, names):
        path = outputs.folder / f'{name}.png'
        with replacing(path) as fresh:
            figure.savefig(fresh)
        print(path)


if __name__ == '__main__':
    main()
