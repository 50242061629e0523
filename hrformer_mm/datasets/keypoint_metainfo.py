# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Create MMPose metainfo from the names of custom keypoints."""
import warnings
from collections.abc import Sequence

from .sides import OTHER, find_pairs, find_unpaired, side_of, words_of

# RGB colours of the left side, the right side, and keypoints without a side.
COLORS = dict(left=(40, 150, 235), right=(245, 110, 40), none=(90, 200, 90))


def check_names(names: Sequence[str], links: Sequence[tuple[str, str]],
                sigmas: Sequence[float]):
    """Raise ValueError if names, links and sigmas do not fit together."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f'names of keypoints must differ, got {twice} twice')
    check_sides(names)
    unknown = sorted({end for link in links for end in link} - set(names))
    if unknown:
        raise ValueError(f'links name {unknown}, which are not among the '
                         f'keypoints {list(names)}')
    if len(sigmas) != len(names) or min(sigmas) <= 0:
        raise ValueError(f'sigmas must be one positive number, or one for '
                         f'each of the {len(names)} keypoints, got '
                         f'{list(sigmas)}')


def check_sides(names: Sequence[str]):
    """Raise ValueError if a left or right keypoint has no counterpart.

    Abbreviated sides are ambiguous and only cause a warning.
    """
    alone = find_unpaired(names, find_pairs(names))
    certain = [n for n in alone if not OTHER.keys().isdisjoint(words_of(n))]
    if certain:
        raise ValueError(f'{certain} have no counterpart on the other side; '
                         'mirrored images need one for each left and right')
    if alone:
        warnings.warn(f'{alone} look like one side of a pair, but have no '
                      'counterpart, so they are not swapped in mirrored '
                      'images', stacklevel=3)  # yapf: disable


def make_metainfo(names: Sequence[str],
                  links: Sequence[tuple[str, str]] = (),
                  sigmas: float | Sequence[float] = 0.05,
                  dataset_name: str = 'custom') -> dict:
    """Create the ``metainfo`` of an MMPose dataset with custom keypoints.

    Args:
        names: Names in the order of the annotations. Names that differ only
            in left and right are swapped in flipped images, in any spelling:
            ``left_ear``, ``Ear Left``, ``leftEar``, ``L_Ear``.
        links: Pairs of names to connect with lines.
        sigmas: Standard deviations of annotations relative to the size of the
            object (the square root of its area), which determine how strict
            AP is. COCO has 0.025 for eyes to 0.107 for hips.
        dataset_name: Name of the dataset.

    Raises:
        ValueError: If names, links and sigmas do not fit together, or a left
            or right keypoint has no counterpart.

    Example:
        >>> info = describe(['nose', 'left_ear', 'right_ear'])
        >>> info['keypoint_info'][1]['swap'], info['sigmas']
        ('right_ear', [0.05, 0.05, 0.05])
    """
    if isinstance(sigmas, (int, float)):
        sigmas = [float(sigmas)] * len(names)
    check_names(names, links, sigmas)
    return dict(
        dataset_name=dataset_name,
        keypoint_info=describe_points(names),
        skeleton_info={
            i: dict(id=i, link=tuple(link), color=link_color(link))
            for i, link in enumerate(links)
        },
        joint_weights=[1.] * len(names),
        sigmas=list(sigmas))


def describe_points(names: Sequence[str]) -> dict[int, dict]:
    pairs = find_pairs(names)
    return {
        i: dict(id=i, name=name, color=list(COLORS[side_of(name)]), type='',
                swap=pairs.get(name, ''))
        for i, name in enumerate(names)
    }  # yapf: disable


def link_color(link: Sequence[str]) -> list[int]:
    sides = {side_of(name) for name in link}
    return list(COLORS[sides.pop() if len(sides) == 1 else 'none'])


describe = make_metainfo  # the name until version 0.3
