# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Strip a checkpoint for release.

Optimizer state and logs are removed; config, dataset and results are kept in
the meta; part of the hash is added to the file name.
"""
from argparse import Namespace

from hrformer_mm.checkpoints.publish import publish
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/publish_model.py work_dirs/NAME/best_coco_AP_epoch_210.pth \\
      hrformer_s_coco_256x192.pth
  python tools/publish_model.py work_dirs/NAME/epoch_300.pth \\
      hrformer_t_imagenet_224.safetensors --metric 'Top 1 Accuracy=78.4'
"""


def metric(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition('=')
    if not equals or not name:
        raise ValueError(text)
    return name, float(value)


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument('source', help='checkpoint of a training')
    parser.add_argument('target', help='file to write, .pth or .safetensors')
    parser.add_argument(
        '--config',
        help='config to store (default: the one it was trained with)')
    parser.add_argument(
        '--metric',
        type=metric,
        action='append',
        metavar='NAME=VALUE',
        help='result of the weights (default: read from a best_*.pth)')
    parser.add_argument(
        '--commit',
        help='commit of the training code (default: that of this checkout)')
    parser.add_argument(
        '--force', action='store_true', help='overwrite an existing file')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    path = publish(args.source, args.target, args.config,
                   dict(args.metric) if args.metric else None, args.commit,
                   args.force)
    print(f'wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)')


if __name__ == '__main__':
    main()
