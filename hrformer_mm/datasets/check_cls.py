# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check data sets of MMPretrain: image folders and label files.

Their rules are applied here once more, because MMPretrain stops at the first
fault of a listing or passes over it: label files where the config or
``ImageNet`` finds them, sorted class folders otherwise.
"""
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from mmengine.config import Config

from .check import Problem, Summary, map_threads, probe_image, spread

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
FEW = 3  # names that a line shows
CLASSES = 'model.head.num_classes'


@dataclass
class Listing:
    """What training or evaluation would read.

    Attributes:
        root: Folder of the images.
        source: The label file, or ``root`` if its folders are the classes.
        names: Of the classes, if they are known.
        samples: Path of each image and its class.
        problems: Of the listing itself.
    """
    root: Path
    source: Path
    names: Sequence[str] = ()
    samples: List[Tuple[Path, int]] = field(default_factory=list)
    problems: List[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def is_folders(self) -> bool:
        return self.source == self.root


def image_folder(dataset: Mapping) -> Path:
    prefix = dataset.get('data_prefix') or dataset.get('split', '')
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path', '')
    return Path(dataset.get('data_root', '')) / prefix


def label_file(dataset: Mapping) -> Optional[Path]:
    """Where the labels of a data set stand, if not in folders."""
    root, split = Path(dataset.get('data_root', '')), dataset.get('split')
    if dataset.get('ann_file'):
        return root / dataset['ann_file']
    found = root / 'meta' / f'{split}.txt'
    return found if split and found.exists() else None


def list_folders(root: Path) -> Listing:
    """Images of sorted folders, which are the classes."""
    names = sorted(p.name for p in root.iterdir() if p.is_dir())
    listing = Listing(root, root, names)
    if not names:
        listing.problems.append(Problem(str(root), 'has no class folders'))
    for label, name in enumerate(names):
        paths = sorted(p for p in (root / name).rglob('*')
                       if p.suffix.lower() in EXTENSIONS)
        listing.samples += [(path, label) for path in paths]
        if not paths:
            listing.problems.append(
                Problem(str(root / name), 'holds no images that end in '
                        f'{", ".join(EXTENSIONS)}'))
    return listing


def list_labels(source: Path, root: Path, names: Sequence[str]) -> Listing:
    """Images of a file with a path and a class in each line."""
    listing = Listing(root, source, names)
    for number, line in enumerate(source.read_text().splitlines(), 1):
        name, _, label = line.strip().rpartition(' ')
        if name and label.isdigit():
            listing.samples.append((root / name, int(label)))
        else:
            listing.problems.append(
                Problem(f'{source}, line {number}',
                        f'is not an image and a class, but {line[:60]!r}'))
    return listing


def read_listing(dataset: Mapping) -> Listing:
    """What a data set's config says that it holds.

    Raises:
        FileNotFoundError: If its folder is missing.
    """
    root, source = image_folder(dataset), label_file(dataset)
    if not root.is_dir():
        raise FileNotFoundError(
            f'there is no folder {root}; the README of the config has the '
            'layout, and --data-root DIR says where it is')
    if source is None:
        return list_folders(root)
    names = dataset.get('metainfo', {}).get('classes', ())
    return list_labels(source, root, names)


def check_classes(listing: Listing, classes: int) -> Iterator[Problem]:
    """Compare the classes of a listing with those of the head."""
    top = max((label for _, label in listing.samples), default=0)
    if listing.is_folders and len(listing.names) != classes:
        yield Problem(
            str(listing.root), f'has {len(listing.names)} class folders, but '
            f'{CLASSES} is {classes}', len(listing.names) > classes)
    if not listing.is_folders and top >= classes:
        yield Problem(
            str(listing.source), f'has classes up to {top}, but {CLASSES} is '
            f'{classes}, which allows 0 to {classes - 1}')


def check_config(cfg: Config) -> Iterator[Problem]:
    """Compare the places where a config says how many classes there are."""
    classes = cfg.model.head.num_classes
    other = cfg.model.get('data_preprocessor', {}).get('num_classes', classes)
    if other not in (None, classes):
        yield Problem('model.data_preprocessor.num_classes',
                      f'is {other}, but {CLASSES} is {classes}')


def check_folders(listing: Listing, first: Listing) -> Iterator[Problem]:
    """Compare class folders of two listings: their names make the classes."""
    if not (listing.is_folders and first.is_folders):
        return
    for one, other in ((first, listing), (listing, first)):
        lacking = [n for n in one.names if n not in set(other.names)]
        if lacking:
            dots = ', ...' * (len(lacking) > FEW)
            yield Problem(
                str(other.root), f'has no folder {", ".join(lacking[:FEW])}'
                f'{dots} as {one.root} has, so classes are numbered otherwise')


def count_classes(listing: Listing, classes: int) -> Dict[str, int]:
    """Images of each class, by name where names are known."""
    counts = Counter(label for _, label in listing.samples)
    names = list(listing.names)
    if not listing.is_folders:
        length = max([classes, *(label + 1 for label in counts)])
        names += [str(label) for label in range(len(names), length)]
    return {name: counts[label] for label, name in enumerate(names)}


def check_listing(listing: Listing, indices: Sequence[int], classes: int,
                  workers: int) -> Summary:
    """Read images, and compare their classes with the head's."""
    paths = [str(listing.samples[i][0]) for i in indices]
    found = list(map_threads(probe_image, paths, workers))
    return Summary(
        dict(images=len(paths)), count_classes(listing, classes), [
            *check_classes(listing, classes), *listing.problems,
            *(problem for _, problem in found if problem)
        ], [size for size, _ in found if size])


def check_loaders(cfg: Config, loaders: Sequence[str], limit: Optional[int],
                  workers: int) -> Dict[str, Summary]:
    """Check the data sets of loaders against the head and each other."""
    listings = {k: read_listing(cfg[k].dataset) for k in loaders}
    classes, result = cfg.model.head.num_classes, {}
    first = listings[loaders[0]]
    for loader, listing in listings.items():
        indices = spread(len(listing), limit)
        result[loader] = check_listing(listing, indices, classes, workers)
        result[loader].problems[:0] = check_folders(listing, first)
    result[loaders[0]].problems[:0] = check_config(cfg)
    return result
