# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Names of your own key points as the metainfo that MMPose asks for."""
from typing import Dict, List, Optional, Sequence, Tuple, Union

# Red, green, blue: the left side, the right side, and what has no side.
COLORS = dict(left=(40, 150, 235), right=(245, 110, 40), none=(90, 200, 90))
OTHER = dict(left='right', right='left')


def side_of(name: str) -> str:
    """left, right or none, by the words of a name such as ``left_ear``."""
    sides = {word for word in name.split('_') if word in OTHER}
    return sides.pop() if len(sides) == 1 else 'none'


def mirror_of(name: str) -> Optional[str]:
    """Name of the key point that takes a name's place in a mirror."""
    if side_of(name) == 'none':
        return None
    return '_'.join(OTHER.get(word, word) for word in name.split('_'))


def check_names(names: Sequence[str], links: Sequence[Tuple[str, str]],
                sigmas: Sequence[float]):
    """Raise ValueError if names, links and sigmas do not fit together."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f'names of key points must differ, got {twice} twice')
    alone = [n for n in names if mirror_of(n) not in (None, *names)]
    if alone:
        raise ValueError(f'{alone} have no counterpart on the other side; '
                         'mirrored images need one for each left and right')
    unknown = sorted({end for link in links for end in link} - set(names))
    if unknown:
        raise ValueError(f'links name {unknown}, which are not among the key '
                         f'points {list(names)}')
    if len(sigmas) != len(names) or min(sigmas) <= 0:
        raise ValueError(f'sigmas must be one positive number, or one for '
                         f'each of the {len(names)} key points, got '
                         f'{list(sigmas)}')


def describe(names: Sequence[str],
             links: Sequence[Tuple[str, str]] = (),
             sigmas: Union[float, Sequence[float]] = 0.05,
             dataset_name: str = 'custom') -> Dict:
    """The ``metainfo`` of a data set of MMPose with key points of your own.

    Args:
        names: In the order of the annotations. ``left`` and ``right`` as a
            word of a name (``left_ear``, ``ear_left``) make the pairs that
            swap in mirrored images.
        links: Pairs of names, to draw lines between.
        sigmas: How far annotators stray from each other, as a share of the
            object's size (the square root of its area): how strictly AP
            judges. COCO has 0.025 for eyes to 0.107 for hips.

    Raises:
        ValueError: If they do not fit together; says how.

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


def describe_points(names: Sequence[str]) -> Dict[int, Dict]:
    return {
        i: dict(id=i, name=name, color=list(COLORS[side_of(name)]), type='',
                swap=mirror_of(name) or '')
        for i, name in enumerate(names)
    }  # yapf: disable


def link_color(link: Sequence[str]) -> List[int]:
    sides = {side_of(name) for name in link}
    return list(COLORS[sides.pop() if len(sides) == 1 else 'none'])
