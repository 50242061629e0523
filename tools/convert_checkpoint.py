# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convert weights between official code, MMPose and this package.

The layout of the source is recognised by its names. Conversion is only needed
to share weights with other code: configs of this package load every layout.
"""
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from hrformer_mm.checkpoints.keymap import BASELINE_TARGETS, TARGETS
from hrformer_mm.checkpoints.publish import convert_file, other_semantics
from hrformer_mm.core.arch import ARCHS
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/convert_checkpoint.py hrt_base.pth hrformer_b.safetensors
  python tools/convert_checkpoint.py work_dirs/NAME/epoch_210.pth mmpose.pth \\
      --to mmpose --check
  python tools/convert_checkpoint.py pose_hrnet_w32_256x192.pth hrnet_w32.pth
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument('source', help='path, name or URL of the weights')
    parser.add_argument('target', help='file to write, .pth or .safetensors')
    parser.add_argument(
        '--to',
        choices=TARGETS + BASELINE_TARGETS,
        default='ours',
        help='layout of the target (default: ours); the last five are '
        'baselines and take weights of the same baseline only')
    parser.add_argument(
        '--arch', choices=sorted(ARCHS), help='expected size of the network')
    parser.add_argument(
        '--key',
        help='entry of the source that holds the tensors, such as '
        'ema_state_dict')
    parser.add_argument(
        '--prefix',
        default='',
        help='key prefix of the model to convert, if there are several')
    parser.add_argument(
        '--check',
        action='store_true',
        help='read the target back, compare all tensors with the source and '
        'require a complete backbone')
    parser.add_argument(
        '--force', action='store_true', help='overwrite the target')
    return parser.parse_args(argv)


def words(args: Mapping[str, Any]) -> str:
    return ', '.join(f'{k}={v!r}' for k, v in args.items())


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    report = convert_file(args.source, args.target, args.to, args.arch,
                          args.key, args.prefix, args.check, args.force)
    print(report)
    if report.semantics:
        print(f'trained with {words(report.semantics)}')
    other = other_semantics(report, args.to)
    if other:
        print(f'note: by default {args.to} computes with {words(other)}, so '
              'its outputs will differ')
    checked = ', equal to the source when read back' if args.check else ''
    print(f'wrote {args.target}{checked}')


if __name__ == '__main__':
    main()
