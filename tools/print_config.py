# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Print a config with all it inherits, or save it as one file."""
from argparse import ArgumentParser, Namespace

from hrformer_mm import cli, training


def parse_args(argv=None) -> Namespace:
    parser = ArgumentParser(description=__doc__, epilog=cli.EPILOG)
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--save-path', help='write it into this .py, .json or .yml file')
    parser.add_argument(
        '--data-root',
        help="folder of the data set, instead of the config's data_root")
    cli.add_cfg_options(parser)
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    cfg = training.read_config(args.config)
    if args.data_root:
        training.set_data_root(cfg, args.data_root)
    training.merge_options(cfg, args.cfg_options)
    if args.save_path:
        cfg.dump(args.save_path)
    else:
        print(cfg.pretty_text)


if __name__ == '__main__':
    main()
