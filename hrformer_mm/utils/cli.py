# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Flags and one-line error reports shared by the command lines."""
import codecs
import os
import select
import sys
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from .paths import PACKAGE
from .suggest import near_names
from .tracebacks import log_of

EPILOG = """User errors are reported in one line, with exit code 2. Set
HRFORMER_MM_TRACEBACK=1 or pass --traceback for the traceback. Errors of a run
that has started also have their traceback in its log file. Set
HRFORMER_MM_OFFLINE=1 or pass --offline to forbid downloads."""
OFFLINE, TRACEBACK = 'HRFORMER_MM_OFFLINE', 'HRFORMER_MM_TRACEBACK'
# Runtimes of networks, see hrformer_mm/deploy/backends.py.
BACKENDS = ('auto', 'torch', 'onnxruntime', 'openvino')
FLAGS = ('--traceback', '--offline')  # of all commands
# Files and functions of mmengine that build what a config describes.
BUILDERS = {('build_functions.py', 'build_from_cfg'),
            ('builder.py', 'build_optim_wrapper'), ('runner.py', '__init__')}


def wants_traceback() -> bool:
    return os.environ.get(TRACEBACK, '0') not in ('', '0')


def raised_here(error: BaseException) -> bool:
    """Return whether this package raised an error itself."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and PACKAGE in Path(
        frames[-1].filename).resolve().parents


def is_mistake(error: Exception) -> bool:
    """Return whether a user can fix an error by reading one line.

    These are wrong values, missing files, packages and registered names, all
    errors that this package raises, and all errors of building what a config
    describes. Others, such as running out of memory, keep their traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if any((Path(f.filename).name, f.name) in BUILDERS for f in frames):
        return True
    if isinstance(error, TypeError):
        return 'argument' in str(error)
    return isinstance(error, (OSError, ValueError, ImportError, KeyError)) or (
        isinstance(error, RuntimeError) and raised_here(error))


def one_line(error: Exception) -> str:
    """Return the message of an error in one line, with similar names."""
    is_key = isinstance(error, KeyError) and error.args
    text = str(error.args[0] if is_key else error)
    text = text.partition(' Please check whether the value of')[0]
    if 'Original Traceback' in text:  # from a worker of a data loader
        text = text.strip().splitlines()[-1]
    text = ' '.join(text.split()) or type(error).__name__
    hint = near_names(error)
    return text.rstrip('.') + hint if hint else text


def escape_what_the_locale_lacks():
    """Print escapes for characters that the locale does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # tests may replace it
            stream.reconfigure(errors='backslashreplace')


def restart_in_utf8_mode():
    """Restart a tool in Python's UTF-8 mode if file names are ASCII only.

    In such a locale no file of another name can be opened, and this cannot be
    changed in a running process.
    """
    is_ascii = codecs.lookup(sys.getfilesystemencoding()).name == 'ascii'
    if is_ascii and os.environ.get('PYTHONUTF8') != '1' and sys.executable:
        os.environ['PYTHONUTF8'] = '1'
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@contextmanager
def downloading(is_allowed: bool) -> Iterator[None]:
    """Forbid downloads, also in processes that are started, if not allowed."""
    before = os.environ.get(OFFLINE, '0')
    os.environ[OFFLINE] = before if is_allowed else '1'
    try:
        yield
    finally:
        os.environ[OFFLINE] = before


def reader_is_gone() -> bool:
    """Return whether ``head`` or the like closed the pipe of stdout.

    If so, later output is dropped; Python would complain about it at exit.
    """
    if not hasattr(select, 'poll'):  # Windows
        return False
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)
    except OSError:  # it is no file, but collected by a test or a notebook
        return False
    gone = any(event & (select.POLLERR | select.POLLHUP)
               for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def one_line_errors(main: Callable) -> Callable:
    """Make ``main(argv=None)`` of a tool report user errors in one line.

    Prints ``error: ...`` to stderr and exits with code 2. Both :data:`FLAGS`
    (see :data:`EPILOG`) are removed from the arguments here.
    """

    @wraps(main)
    def wrapped(argv: Sequence[str] | None = None):
        if argv is None:  # this process runs nothing else
            restart_in_utf8_mode()
        escape_what_the_locale_lacks()
        argv = list(sys.argv[1:] if argv is None else argv)
        full = '--traceback' in argv or wants_traceback()
        try:
            with downloading('--offline' not in argv):
                code = main([arg for arg in argv if arg not in FLAGS])
                sys.stdout.flush()
                return code
        except Exception as error:
            if isinstance(error, BrokenPipeError) and reader_is_gone():
                raise SystemExit(128 + 13)  # as a program that SIGPIPE ended
            if full or not is_mistake(error):
                raise
            log = log_of(error)
            hint = f' (traceback in {log})' if log else '' if raised_here(
                error) else ' (HRFORMER_MM_TRACEBACK=1 shows where)'
            print(f'error: {one_line(error)}{hint}', file=sys.stderr)
        raise SystemExit(2)

    return wrapped


class Options(DictAction):
    """Parse KEY=VALUE pairs; report a missing = or unbalanced brackets."""

    def __call__(self, parser, namespace, values, option_string=None):
        wrong = [value for value in values if '=' not in value]
        if wrong:
            parser.error(f'{option_string} takes KEY=VALUE, got {wrong[0]!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            parser.error(f'{option_string}: {error}')
        except RecursionError:  # mmengine, on brackets in the wrong order
            parser.error(f'{option_string}: cannot parse {values}')


def add_cfg_options(parser: ArgumentParser):
    """Add ``--cfg-options``, which all tools that read a config have."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='override values of the config, such as '
        "model.backbone.drop_path_rate=0.2 or key='[(a,b),(c,d)]'; no spaces "
        'inside a value')


def plain_parser(description: str, examples: str,
                 **kwargs: Any) -> ArgumentParser:
    """Make a parser without arguments, whose help ends with examples.

    Line breaks are kept, also those of the description.
    """
    return ArgumentParser(
        description=description,
        epilog=f'{examples}\n{EPILOG}',
        formatter_class=RawDescriptionHelpFormatter,
        **kwargs)


def dataset_parser(description: str, examples: str) -> ArgumentParser:
    """Make a parser with the arguments of all tools that read datasets."""
    parser = plain_parser(description, examples)
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--data-root',
        help="folder of the dataset, instead of the config's data_root")
    add_cfg_options(parser)
    return parser


def add_backend(parser: ArgumentParser):
    """Add the flags of all tools that run a network."""
    add = parser.add_argument
    add('--backend', choices=BACKENDS, default='auto',
        help='runtime of the network (default: auto, that of the file: torch '
        'for a checkpoint, onnxruntime for .onnx, openvino for .xml); for '
        'another one, a checkpoint is exported first, in a minute or two')
    add('--precision', choices=['fp32', 'bf16'],
        help='precision of OpenVINO; bf16 is the fastest on CPUs that have it '
        '(default: that of the file; fp32 for a checkpoint)')


def add_run_flags(parser: ArgumentParser):
    """Add the flags that only training and testing have."""
    add = parser.add_argument
    add('--work-dir', help='write logs and checkpoints to this folder '
        '(default: work_dirs/NAME)')
    add('--show-dir', help='write images with predictions of the evaluation '
        'to this folder')
    add('--show', action='store_true', help='show predictions in a window')
    add('--interval', type=int, default=1,
        help='draw every n-th image (default: 1)')
    add('--wait-time', type=float, default=1,
        help='show each window for this many seconds (default: 1)')
    add('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher (default: none, a single process)')
    # torch.distributed.launch passes either spelling.
    add('--local-rank', '--local_rank', type=int, default=0,
        help='rank of this process on its machine; set by the launcher')
