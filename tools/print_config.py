# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Print a config with everything it inherits, or save it as one file."""
from argparse import Namespace

from hrformer_mm.engine import train as training
from hrformer_mm.utils import cli

EXAMPLES = """examples:
  python tools/print_config.py configs/pose/hrformer_s_coco_256x192.py
  python tools/print_config.py CONFIG --save-path whole.py \\
      --cfg-options model.backbone.window_size=15
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.dataset_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--save-path', help='write the config to this .py, .json or .yml file')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    cfg = training.config_for(args)
    if args.save_path:
        cfg.dump(args.save_path)
    else:
        print(cfg.pretty_text)


if __name__ == '__main__':
    main()
