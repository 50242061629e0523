# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""What the command lines share: flags, and mistakes told in one line."""
import os
import sys
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from mmengine.config import DictAction

from .paths import PACKAGE
from .suggest import near_names
from .tracebacks import log_of

EPILOG = """A mistake ends in one line and exit code 2; HRFORMER_MM_TRACEBACK=1
or --traceback shows where it was raised. Errors of a run that has started also
have their traceback in its log file."""
# Files and functions of mmengine that build what a config describes.
BUILDERS = {('build_functions.py', 'build_from_cfg'),
            ('builder.py', 'build_optim_wrapper'), ('runner.py', '__init__')}


def raised_here(error: BaseException) -> bool:
    """Whether this package raised an error, so that its text is ours."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and str(Path(
        frames[-1].filename).resolve()).startswith(str(PACKAGE))


def is_building(error: BaseException) -> bool:
    """Whether something was being built from a config when it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return any((Path(f.filename).name, f.name) in BUILDERS for f in frames)


def is_mistake(error: Exception) -> bool:
    """Whether an error is one that a user can fix by reading one line.

    Wrong values, missing files, packages and registered names are; so is all
    that this package raises, an argument that a class does not have, and
    whatever a class says to the values of a config. The rest, such as a lack
    of memory, keeps its traceback.
    """
    if is_building(error):
        return True
    if isinstance(error, TypeError):
        return 'argument' in str(error)
    return isinstance(error, (OSError, ValueError, ImportError, KeyError)) or (
        isinstance(error, RuntimeError) and raised_here(error))


def one_line(error: Exception) -> str:
    """Return the message of an error in one line, with nearest names."""
    is_key = isinstance(error, KeyError) and error.args
    text = str(error.args[0] if is_key else error)
    text = text.partition(' Please check whether the value of')[0]
    if 'Original Traceback' in text:  # from a worker of a data loader
        text = text.strip().splitlines()[-1]
    text = ' '.join(text.split()) or type(error).__name__
    hint = near_names(error)
    return text.rstrip('.') + hint if hint else text


def escape_what_the_locale_lacks():
    """Let output print escapes for characters the locale does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # tests may replace it
            stream.reconfigure(errors='backslashreplace')


def one_line_errors(main: Callable) -> Callable:
    """Let ``main(argv=None)`` of a tool report mistakes in one line.

    Prints ``error: ...`` to stderr and exits with code 2. The traceback comes
    back with ``HRFORMER_MM_TRACEBACK=1`` or ``--traceback``, which is taken
    out of the arguments here.
    """

    @wraps(main)
    def wrapped(argv: Optional[Sequence[str]] = None):
        escape_what_the_locale_lacks()
        argv = list(sys.argv[1:] if argv is None else argv)
        full = '--traceback' in argv or os.environ.get(
            'HRFORMER_MM_TRACEBACK', '0') not in ('', '0')
        try:
            return main([arg for arg in argv if arg != '--traceback'])
        except Exception as error:
            if full or not is_mistake(error):
                raise
            log = log_of(error)
            hint = f' (traceback in {log})' if log else '' if raised_here(
                error) else ' (HRFORMER_MM_TRACEBACK=1 shows where)'
            print(f'error: {one_line(error)}{hint}', file=sys.stderr)
        raise SystemExit(2)

    return wrapped


class Options(DictAction):
    """KEY=VALUE pairs, with errors for a missing = and for odd brackets."""

    def __call__(self, parser, namespace, values, option_string=None):
        wrong = [value for value in values if '=' not in value]
        if wrong:
            parser.error(f'{option_string} takes KEY=VALUE, got {wrong[0]!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            parser.error(f'{option_string}: {error}')


def add_cfg_options(parser: ArgumentParser):
    """What all tools that read a config take."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='change single values of the config, such as '
        "model.backbone.drop_path_rate=0.2 or key='[(a,b),(c,d)]'; no spaces "
        'inside a value')


def plain_parser(description: str, examples: str,
                 **kwargs: Any) -> ArgumentParser:
    """A parser without arguments, whose help ends with examples.

    Args:
        description: What the tool does; its lines stay as they are.
        examples: Lines below ``examples:``, likewise.
        **kwargs: Of :class:`argparse.ArgumentParser`.
    """
    return ArgumentParser(
        description=description,
        epilog=f'{examples}\n{EPILOG}',
        formatter_class=RawDescriptionHelpFormatter,
        **kwargs)


def make_parser(description: str, examples: str) -> ArgumentParser:
    """A parser of what all tools with a config and its data take."""
    parser = plain_parser(description, examples)
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--data-root',
        help="folder of the dataset, instead of the config's data_root")
    add_cfg_options(parser)
    return parser


def add_run_flags(parser: ArgumentParser):
    """What training and testing take besides."""
    parser.add_argument(
        '--work-dir',
        help='where logs and checkpoints go (default: work_dirs/NAME)')
    parser.add_argument(
        '--show-dir',
        help='draw predictions of the evaluation into this folder')
    parser.add_argument(
        '--show', action='store_true', help='draw predictions in a window')
    parser.add_argument(
        '--interval', type=int, default=1, help='draw every n-th (default: 1)')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=1,
        help='seconds each window stays (default: 1)')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes (default: none, there is one)')
    # torch.distributed.launch passes either spelling.
    parser.add_argument(
        '--local-rank',
        '--local_rank',
        type=int,
        default=0,
        help='number of this process on its machine; the launcher sets it')
