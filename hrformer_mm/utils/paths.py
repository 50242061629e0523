# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Find the files that belong to the package."""
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def root() -> Path:
    """Return the folder that contains ``configs``.

    This is the checkout, or ``.mim`` inside the installed package.

    Raises:
        FileNotFoundError: If neither contains it.
    """
    places = [PACKAGE.parent, PACKAGE / '.mim']
    for place in places:
        if (place / 'configs' / '_base_').is_dir():
            return place
    raise FileNotFoundError(
        f'hrformer_mm found no configs in {places[0]} or {places[1]}; '
        'reinstall the package')


def configs_by_name() -> dict[str, Path]:
    """Return all config files by their name, without folder and ending."""
    return {path.stem: path for path in root().glob('configs/[!_]*/*.py')}


def moved_base(error: Exception) -> str:
    """Return where a base that lay in ``_base_/TASK`` in 0.1 is now."""
    path = re.search(r'([^\s"\']+/_base_/\w+)/([\w-]+\.py)', str(error))
    found = sorted(Path(path[1]).glob(f'*/{path[2]}')) if path else []
    return f'; this file moved to {found[0]}' if found else ''
