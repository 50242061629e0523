# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""List the images of MMPretrain's class folders and label files.

The rules of MMPretrain are reimplemented, because it stops at the first fault
of a listing or ignores it: label files where the config or ``ImageNet`` finds
them, otherwise sorted class folders.
"""
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from ...utils.dataset_leaves import Leaf, datasets_of, type_name
from .common import Problem
from .image_types import other_images

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
FEW = 3  # maximum number of names in a message
# Folders that tools create, besides hidden ones.
LEFTOVERS = ('__MACOSX', '__pycache__', '@eaDir', 'lost+found')


@dataclass
class Listing:
    """Samples that training or evaluation would read.

    Attributes:
        root: Folder of the images.
        source: Label file, or ``root`` if its folders are the classes.
        names: Names of the classes, if known.
        samples: Path and class of each image; the class is -1 without labels.
        problems: Errors in the listing.
        warnings: Findings that may be intended.
    """
    root: Path
    source: Path
    names: Sequence[str] = ()
    samples: list[tuple[Path, int]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def is_folders(self) -> bool:
        return self.source == self.root and bool(self.names)


def user_path(path: str | None) -> Path:
    """Return a path with ~ expanded, as in MMPretrain."""
    return Path(os.path.expanduser(path or ''))


def image_folder(dataset: Mapping) -> Path:
    prefix = dataset.get('data_prefix') or dataset.get('split', '')
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path', '')
    return user_path(dataset.get('data_root')) / user_path(prefix)


def label_file(dataset: Mapping) -> Path | None:
    """Return the label file of a dataset, if it has one."""
    root, split = user_path(dataset.get('data_root')), dataset.get('split')
    if dataset.get('ann_file'):
        return root / user_path(dataset['ann_file'])
    found = root / 'meta' / f'{split}.txt'
    return found if split and found.exists() else None


def find_images(folder: Path, extensions: Sequence[str]) -> list[Path]:
    """Find the images that MMPretrain reads, which excludes hidden files."""
    return sorted(
        Path(parent, name)
        for parent, _, files in os.walk(folder, followlinks=True)
        for name in files
        if name.lower().endswith(tuple(extensions)) and name[0] != '.')


def is_leftover(name: str) -> bool:
    """Whether a folder was created by a tool and is not a class."""
    return name.startswith('.') or name in LEFTOVERS


def check_leftovers(listing: Listing):
    """Find hidden folders, which MMPretrain counts as classes."""
    for name in filter(is_leftover, listing.names):
        listing.problems.append(
            Problem(
                str(listing.root / name), 'is a folder of a tool, but is '
                f'counted as class {sorted(listing.names).index(name)} and '
                f'renumbers others: rm -r {listing.root / name}'))
    for name in listing.names:
        inside = [p for p in listing.root.joinpath(name).rglob('.*')
                  if p.is_dir() and not is_leftover(name)]
        if inside:
            listing.warnings.append(
                Problem(str(inside[0]), 'is hidden, but its images are read',
                        False))


def list_folders(root: Path, extensions: Sequence[str]) -> Listing:
    """List the images of class folders, in sorted order."""
    names = sorted(p.name for p in root.iterdir() if p.is_dir())
    listing = Listing(root, root, names)
    if not names:
        listing.problems.append(Problem(str(root), 'has no class folders'))
    check_leftovers(listing)
    for label, name in enumerate(names):
        paths = find_images(root / name, extensions)
        listing.samples += [(path, label) for path in paths]
        if not paths and not is_leftover(name):
            listing.warnings.append(
                Problem(str(root / name), 'holds no images that end in '
                        f'{", ".join(extensions)}', False))
    return listing


def list_labels(source: Path, root: Path, names: Sequence[str],
                has_labels: bool) -> Listing:
    """List the images of a label file with a path and a class per line."""
    listing = Listing(root, source, names)
    lines = source.read_text(encoding='utf-8-sig').splitlines()
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not has_labels:
            listing.samples.append((root / line.strip(), -1))
        elif name and label.isdigit():
            listing.samples.append((root / name, int(label)))
        else:
            listing.problems.append(
                Problem(f'{source}, line {number}',
                        f'is not an image and a class, but {line[:60]!r}'))
    return listing


def has_labels(dataset: Mapping) -> bool:
    """Whether a dataset has labels; the test images of ImageNet do not."""
    return dataset.get('with_label', True) and not (
        type_name(dataset) == 'ImageNet' and dataset.get('split') == 'test')


def read_listing(dataset: Mapping) -> Listing:
    """List the samples of a dataset by its config.

    Raises:
        FileNotFoundError: If its folder is missing.
    """
    root, source = image_folder(dataset), label_file(dataset)
    labelled = has_labels(dataset)
    extensions = tuple(
        e.lower() for e in dataset.get('extensions') or EXTENSIONS)
    if not root.is_dir():
        raise FileNotFoundError(
            f'there is no folder {root}; the README of the config has the '
            'layout, and --data-root DIR says where it is')
    if source is not None:
        names = (dataset.get('metainfo') or {}).get('classes', ())
        return list_labels(source, root, names, labelled)
    if labelled:
        listing = list_folders(root, extensions)
    else:
        paths = find_images(root, extensions)
        listing = Listing(root, root, (), [(path, -1) for path in paths])
    listing.warnings += other_images(
        str(root), extensions,
        f'it reads {", ".join(extensions)}: convert them, or name their '
        "types in the dataset's extensions", any_case=True)
    return listing


def is_listed(leaf: Leaf) -> bool:
    """Whether a dataset lists class folders or a label file."""
    from mmpretrain.datasets import CustomDataset
    kind = leaf.kind
    methods = ('load_data_list', '_find_samples', 'is_valid_file')
    return kind is not None and issubclass(kind, CustomDataset) and all(
        getattr(kind, m) is getattr(CustomDataset, m) for m in methods)


def folder_names(leaf: Leaf) -> Listing | None:
    """List the class folders of a dataset without their images.

    Returns:
        The listing, or ``None`` if the classes are not folders or missing.
    """
    root = image_folder(leaf.cfg)
    if not (is_listed(leaf) and has_labels(leaf.cfg)
            and label_file(leaf.cfg) is None and root.is_dir()):
        return None
    return Listing(root, root, sorted(
        p.name for p in root.iterdir() if p.is_dir()))  # yapf: disable


def refuse_other_folders(cfg: Config, *loaders: str):
    """Raise a ValueError if data loaders number their classes differently."""
    if cfg.get('default_scope') != 'mmpretrain':
        return
    listings = [folder_names(leaf) for loader in loaders if cfg.get(loader)
                for leaf in datasets_of(cfg, loader)]
    found = [listing for listing in listings if listing is not None]
    for listing in found:
        check_leftovers(listing)
        for problem in (*listing.problems, *check_folders(listing, found[0])):
            raise ValueError(str(problem))


def check_folders(listing: Listing, first: Listing) -> Iterator[Problem]:
    """Compare the class folders of two listings, which must have equal names.
    """
    if not (listing.is_folders and first.is_folders):
        return
    for one, other in ((first, listing), (listing, first)):
        lacking = [n for n in one.names if n not in set(other.names)]
        if lacking:
            dots = ', ...' * (len(lacking) > FEW)
            yield Problem(
                str(other.root), f'has no folder {", ".join(lacking[:FEW])}'
                f'{dots} as {one.root} has, so classes are numbered '
                'otherwise: both need the same folders, which may be empty')
