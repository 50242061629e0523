# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Released weights of other code bases, listed in ``configs/weights.yml``.

Each entry of ``Weights`` has the fields of :class:`Weights`; ``Sources`` has
the page and, for each task, the licence of a publisher. Fields that no public
source states are omitted; an unknown file name is ``unknown``.
"""
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from ..utils.paths import root

UNKNOWN = 'unknown'


@dataclass(frozen=True)
class Weights:
    """One released file.

    Attributes:
        file: Original file name.
        by: Publisher.
        layout: Layout of the names, see
            :mod:`hrformer_mm.checkpoints.keymap`.
        arch: Size of the network.
        config: Matching config.
        url: Original URL; may be dead.
        page: Page that describes the release.
        license: Licence of the release.
        save_as: Name to save it as, if the original one is unknown.
        window: Window size of attention, if not 7.
        backbone: Whether it has no head, so that it can only be fine-tuned.
        options: ``--cfg-options`` that the config needs to evaluate it.
        sha256: First digits of the hash, if a public source states them.
        note: Known defects.
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
        """Return the file name under which it is searched."""
        return self.save_as or self.file

    @property
    def is_direct(self) -> bool:
        """Whether the URL sends the file itself."""
        return self.url.endswith(f'/{self.name}')

    @property
    def convert(self) -> str:
        """Return the command that converts it (not needed for loading)."""
        target = Path(self.config).stem + '.safetensors'
        return (f'python tools/convert_checkpoint.py {self.name} {target} '
                f'--arch {self.arch} --check')


@cache
def list_weights() -> list[Weights]:
    """Load all entries.

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


def known_weights() -> list[Weights]:
    """Return all entries, none if the package has no configs."""
    try:
        return list_weights()
    except FileNotFoundError:
        return []


def direct_urls(name: str) -> list[str]:
    """Return URLs that send a file itself, not a page for people."""
    return [w.url for w in known_weights() if w.name == name and w.is_direct]


def hash_of(name: str) -> str:
    """Return the first digits of the SHA-256 of a file, '' if unknown."""
    return next((w.sha256 for w in known_weights()
                 if w.name == name and w.sha256), '')


def substitutes(name: str) -> list[str]:
    """Return names of ImageNet checkpoints of the same network."""
    found = [w for w in known_weights() if w.name == name
             and w.layout == 'official-cls' and w.name.startswith('hrt_')]
    return [w.name for w in known_weights() for official in found
            if w.backbone and w.arch == official.arch and w.is_direct]


def weights_of(config: str) -> list[Weights]:
    """Return the checkpoints that a config can be tested with.

    Those that can be downloaded come first.

    Args:
        config: Name of the config, without folder and ending.
    """
    found = [w for w in known_weights()
             if Path(w.config).stem == config and not w.backbone]
    return sorted(found, key=lambda w: not w.is_direct)


def pages_of(name: str) -> list[str]:
    """Return the pages from which people can download a file."""
    found = [page for w in known_weights() if w.name == name
             for page in (w.url, w.page)]
    return list(dict.fromkeys(found))
