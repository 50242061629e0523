# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Weights that others have released: what ``configs/weights.yml`` lists.

Each entry of ``Weights`` has the fields of :class:`Weights`; ``Sources`` has
the page and the licence for each task of those who released them. What no
public source tells is left out, or ``unknown`` for the name of a file.
"""
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import List, Optional

import yaml

from ..utils.paths import root

UNKNOWN = 'unknown'


@dataclass(frozen=True)
class Weights:
    """One released file.

    Attributes:
        file: Its name where it was released.
        by: Who released it.
        layout: Of its names, see :mod:`hrformer_mm.checkpoints.keymap`.
        arch: Size.
        config: The row it belongs to.
        url: Where it was; may be dead.
        page: Where the release is described.
        license: Of the release.
        save_as: Name to give it, where the original one is unknown.
        window: Of attention, if not 7.
        backbone: There is no head, so that it can only be trained on.
        options: ``--cfg-options`` that evaluating it with the row needs.
        sha256: How it begins, where a public source tells.
        note: Known faults.
    """
    file: str
    by: str
    layout: str
    arch: str
    config: str
    url: str
    page: str
    license: str
    save_as: str = ''
    window: int = 7
    backbone: bool = False
    options: str = ''
    sha256: str = ''
    note: str = ''

    @property
    def name(self) -> str:
        """Under which it is looked for."""
        return self.save_as or self.file

    @property
    def convert(self) -> str:
        """The command that writes it as ours, which loading does not need."""
        target = Path(self.config).stem + '.safetensors'
        return (f'python tools/convert_checkpoint.py {self.name} {target} '
                f'--arch {self.arch} --check')


@lru_cache(maxsize=None)
def list_weights() -> List[Weights]:
    """All entries.

    Raises:
        FileNotFoundError: If neither the checkout nor the package has them.
        ValueError: If an entry has an unknown field or lacks one.
    """
    path = root() / 'configs' / 'weights.yml'
    content = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    found = []
    for entry in content['Weights']:
        source = content['Sources'][entry['By']]
        task = Path(entry['Config']).parent.name
        fields = {k.lower().replace(' ', '_'): v for k, v in entry.items()}
        try:
            found.append(
                Weights(
                    page=source['Page'],
                    license=source['License'][task],
                    **fields))
        except TypeError as error:
            raise ValueError(f'{path}: {entry}: {error}') from None
    return found


def page_of(name: str) -> Optional[str]:
    """Where a file of this name was released, if that is known."""
    try:
        pages = [w.page for w in list_weights() if w.name == name]
    except FileNotFoundError:  # the package was installed without configs
        return None
    return pages[0] if pages else None
