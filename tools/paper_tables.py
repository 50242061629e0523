# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Print the paper's tables beside the figures of our configs.

Parameters and FLOPs are counted from the configs, by the convention of the
table; accuracy is marked as the paper's, the official code's or measured here.
"""
from argparse import Namespace

from hrformer_mm import zoo
from hrformer_mm.utils import cli
from hrformer_mm.utils.io import read_text, write_text
from hrformer_mm.zoo import tables

EXAMPLES = """examples:
  python tools/paper_tables.py table-3 table-5
  python tools/paper_tables.py --markdown           # after changing a config
"""


def parse_args(argv=None) -> Namespace:
    parser = cli.plain_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'tables',
        nargs='*',
        metavar='TABLE',
        help=f'one of {", ".join(tables.NAMES)} (default: all of the paper)')
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        '--markdown',
        action='store_true',
        help='update the tables in README.md and configs/*/README.md, '
        'between <!-- table: NAME --> and <!-- end -->')
    action.add_argument(
        '--check',
        action='store_true',
        help='fail if configs, metafiles and these documents disagree')
    return parser.parse_args(argv)


@cli.one_line_errors
def main(argv=None):
    args = parse_args(argv)
    if args.check:
        problems = tables.drift()
        print('\n'.join(problems) or 'configs, metafiles and tables agree')
        raise SystemExit(bool(problems))
    if args.markdown:
        for path in tables.documents():
            text = tables.refresh(read_text(path), path.parent)
            write_text(path, text)
            print(f'wrote {path}')
        return
    of_paper = [name for name in tables.NAMES if name not in zoo.TASKS]
    for name in args.tables or of_paper:
        print(f'{tables.NAMES.get(name, name)}\n\n{tables.render(name)}')


if __name__ == '__main__':
    main()
