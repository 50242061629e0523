# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check the wording of code and documents against the glossary.

CONTRIBUTING.md has the glossary. Three rules are checked: no docstring begins
with "What", no argument description with "Of", and none of the words in WORDS
is used, except in a line with "language: allow" or between the lines
"language: off" and "language: on". Prints each finding as FILE:LINE and exits
with 1 if there are any.
"""
import argparse
import ast
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = ('.py', '.md', '.sh', '.yml', '.cfg', '.txt')
# Pattern of a word to avoid: word to use.
WORDS: dict[str, str] = {
    r'mend(s|ed|ing)?': 'fix',
    r'(tells?|told)': 'report, print or log',
    r'(go|goes|going|went|gone) on': 'resume or continue',
    r'key[ -]points?': 'keypoint',
    r'heat[ -]maps?': 'heatmap',
    r'data sets?': 'dataset',
    r'films?': 'video',
    r'(by heart|learnt)': 'overfit or learned',
    r'near are': 'did you mean',
    r'(writes?|wrote|written) over': 'overwrite',
    r'passed over': 'skipped',
    r'first guess(es)?': 'coarse segmentation',
    r'give away': 'release',
    r'how far the limit is': 'distance to the roofline',
    r'optimis(e|ed|es|er|ers|ing|ation)': 'optimize',
}
PATTERN = re.compile(
    r'\b(' + '|'.join(f'(?:{word})' for word in WORDS) + r')\b', re.I)
OF = re.compile(r'^\s+\**\w+( \([^)]*\))?: Of\b')
WHAT = re.compile(r'\s*What\b')
ALLOW = 'language: allow'  # in a line that quotes a word
OFF, ON = 'language: off', 'language: on'  # around lines that quote words
OWN = 'tools/lint_language.py'


class Finding(NamedTuple):
    """A line that breaks a rule."""
    path: Path
    line: int
    text: str


def advice(word: str) -> str:
    """Return the word to use instead of another."""
    return next(better for pattern, better in WORDS.items()
                if re.fullmatch(pattern, word, re.I))


def check_lines(path: Path, text: str) -> Iterator[Finding]:
    """Find words of the list, and argument descriptions with "Of"."""
    off = False
    for number, line in enumerate(text.splitlines(), 1):
        off = OFF in line or (off and ON not in line)
        if off or ALLOW in line:
            continue
        for match in PATTERN.finditer(line.replace('_', ' ')):
            yield Finding(path, number,
                          f'{match[0]!r}: write {advice(match[0])}')
        if path.suffix == '.py' and OF.match(line):
            yield Finding(path, number, 'a description begins with "Of"')


def check_docstrings(path: Path, text: str) -> Iterator[Finding]:
    """Find docstrings that begin with "What"."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and WHAT.match(
                ast.get_docstring(node) or ''):
            line = getattr(node, 'lineno', 1)
            yield Finding(path, line, 'a docstring begins with "What"')


def check_file(path: Path) -> list[Finding]:
    """Find all violations in a file."""
    text = path.read_text(encoding='utf-8')
    found = list(check_lines(path, text))
    if path.suffix == '.py':
        found += check_docstrings(path, text)
    return sorted(found, key=lambda finding: finding.line)


def list_files(paths: Sequence[str]) -> list[Path]:
    """List the files below some paths that git tracks."""
    names = subprocess.run(
        ['git', 'ls-files', *paths], cwd=ROOT, capture_output=True, text=True,
        check=True).stdout.splitlines()
    return [ROOT / name for name in names if name != OWN
            and name.endswith(SUFFIXES) and (ROOT / name).is_file()]


def main(argv: Sequence[str] | None = None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'paths', nargs='*', help='files and folders (default: all)')
    args = parser.parse_args(argv)
    found = [finding for path in list_files(args.paths)
             for finding in check_file(path)]
    for finding in found:
        print(f'{finding.path.relative_to(ROOT)}:{finding.line}: '
              f'{finding.text}')
    raise SystemExit(bool(found))


if __name__ == '__main__':
    main()
