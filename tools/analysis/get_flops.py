# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Count parameters and multiply-adds of a config, by four conventions.

The network is not executed, so any input size takes a second and no memory.
"""
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from hrformer_mm import zoo
from hrformer_mm.engine.train import read_config
from hrformer_mm.utils import cli
from hrformer_mm.utils.io import write_json
from hrformer_mm.zoo import flops, tables

EXAMPLES = """examples:
  python tools/analysis/get_flops.py hrformer_s_coco_256x192
  python tools/analysis/get_flops.py CONFIG --shape 512 512 --plot flops.png
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument('config', help='path or name of a config')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='input size (default: the one in the name of the config)')
    parser.add_argument('--json', help='write the counts to this file')
    parser.add_argument(
        '--plot', help='draw a bar chart of the stages to this PNG')
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    cfg = (
        read_config(args.config)
        if Path(args.config).is_file() else zoo.get_config(args.config))
    cfg.merge_from_dict(args.cfg_options or {})
    shape = tuple(args.shape or zoo.input_size(args.config))
    counted = flops.count(zoo.build_model(cfg), shape)
    title = f'{Path(args.config).stem} at {shape[0]}x{shape[1]}'
    print(f'{title}: {counted.parameters:,} parameters, billions of '
          f'multiply-adds\n\n{tables.count_table(counted)}\n'
          f'{flops.WHY_THEY_DIFFER}')
    if args.json:
        write_json(args.json, asdict(counted), indent=2)
    if args.plot:
        flops.plot(counted, args.plot, title)


if __name__ == '__main__':
    main()
