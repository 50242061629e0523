# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check names, pairs, links, sigmas and weights of keypoints."""
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...utils.dataset_leaves import Leaf
from ..sides import find_pairs, find_unpaired
from .common import Problem

KEYS = ('dataset_name', 'keypoint_info', 'skeleton_info', 'joint_weights',
        'sigmas')


def metainfo_file(name: str) -> tuple[Path, bool]:
    """Return the file of a metainfo, and whether it belongs to MMPose."""
    path = Path(name)
    if path.is_file():
        return path, False
    import mmpose  # MMPose searches its own folder, too
    return Path(mmpose.__file__).with_name('.mim').joinpath(
        'configs/_base_/datasets', path.name), True


def read_metainfo(leaf: Leaf) -> tuple[dict[str, Any], bool]:
    """Return the metainfo as written, and whether it belongs to MMPose.

    Raises:
        ValueError: If the dataset has none.
    """
    info, published = leaf.cfg.get('metainfo'), False
    if not info:
        kind: Any = leaf.kind
        if hasattr(kind, '_check_subset_and_metainfo'):  # of DeepFashion
            kind._check_subset_and_metainfo(leaf.cfg.get('subset', ''))
        info, published = kind.METAINFO, True
    if 'from_file' in info:
        path, published = metainfo_file(info['from_file'])
        info = Config.fromfile(path).dataset_info
    lacking = [key for key in KEYS if key not in info]
    if lacking:
        raise ValueError(f'its metainfo lacks {", ".join(lacking)}')
    return info, published


def names_of(info: Mapping) -> list[str]:
    return [point['name'] for point in info['keypoint_info'].values()]


def swaps_of(info: Mapping) -> dict[str, str]:
    """Return the keypoints that are swapped in flipped images."""
    return {
        p['name']: p['swap']
        for p in info['keypoint_info'].values()
        if p.get('swap') and p['swap'] != p['name']
    }


def check_pairs(names: list[str], swaps: Mapping[str, str]) -> Iterator[str]:
    """Find faults in the pairs that are swapped in flipped images."""
    pairs = find_pairs(names)
    for name in names:
        other, expected = swaps.get(name), pairs.get(name)
        if other and other not in names:
            yield f'{name} swaps with {other}, which is no keypoint'
        elif other and swaps.get(other) != name:
            yield (f'{name} swaps with {other}, but {other} with '
                   f"{swaps.get(other) or 'none'}")
        elif not other and expected:
            yield (f'{name} swaps with none in mirrored images, although '
                   f'there is {expected}')
        elif expected and other != expected:
            yield f'{name} swaps with {other}, although there is {expected}'


def describe_pairs(info: Mapping) -> str:
    """Describe the pairs that are swapped in flipped images."""
    pairs = {tuple(sorted(pair, key=names_of(info).index))
             for pair in swaps_of(info).items()
             if {*pair} <= {*names_of(info)}}  # yapf: disable
    words = ', '.join('/'.join(pair) for pair in sorted(
        pairs, key=lambda pair: names_of(info).index(pair[0])))
    return f'pairs that swap in mirrored images: {words or "none"}'


def check_unpaired(info: Mapping) -> Problem | None:
    """Find names that look like one side of a pair but have no counterpart."""
    swaps, names = swaps_of(info), names_of(info)
    paired = {*swaps, *find_pairs(names)}  # check_pairs reports these
    found = find_unpaired(names, paired)
    return found and Problem(
        f"metainfo of {info.get('dataset_name')}", 'has names that look like '
        f'left or right, but swap with none in mirrored images: {found}',
        False) or None


def check_metainfo(info: Mapping,
                   asks_sigmas: bool) -> Iterator[Problem]:
    """Find faults in names, pairs, links, sigmas and weights of keypoints.

    Args:
        info: Metainfo as written.
        asks_sigmas: Whether a metric needs sigmas.
    """
    where = f"metainfo of {info.get('dataset_name')}"
    listed = names_of(info)
    if len({*listed}) < len(listed):
        yield Problem(where, f'has a name twice: {listed}', False)
    for fault in check_pairs(listed, swaps_of(info)):
        yield Problem(where, f'says that {fault}', 'no keypoint' in fault)
    for link in info['skeleton_info'].values():
        unknown = [end for end in link['link'] if end not in listed]
        if unknown:
            yield Problem(where, f'links {unknown}, which are no keypoints')
    for key in ('sigmas', 'joint_weights'):
        wanted = key != 'sigmas' or asks_sigmas or len(info[key])
        if wanted and len(info[key]) != len(listed):
            yield Problem(where, f'has {len(info[key])} {key} for '
                          f'{len(listed)} keypoints',
                          key != 'sigmas' or asks_sigmas)
    if not all(sigma > 0 for sigma in info['sigmas']):
        yield Problem(where, 'has sigmas that are not positive: '
                      f"{list(info['sigmas'])}", False)
