# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Left/right pairs are found in names of any spelling."""
from pathlib import Path

import pytest
from mmengine.config import Config

from hrformer_mm.datasets import keypoint_metainfo as keypoints
from hrformer_mm.datasets.sides import find_pairs, find_unpaired

PAIRS = [
    ('left_ear', 'right_ear'), ('Left_Ear', 'Right_Ear'),
    ('left ear', 'right ear'), ('left-ear', 'right-ear'),
    ('leftEar', 'rightEar'), ('LeftEar', 'RightEar'), ('L_Ear', 'R_Ear'),
    ('LEFT_EAR', 'RIGHT_EAR'), ('l_eye', 'r_eye'), ('eye.L', 'eye.R'),
    ('ear_left', 'ear_right'), ('Ear (left)', 'Ear (right)'),
    ('LEar', 'REar'), ('earL', 'earR'), ('LFrontPaw', 'RFrontPaw'),
    ('frontLeftPaw2', 'frontRightPaw2'), ('paw-l-1', 'paw-r-1'),
    ('hindlegL1', 'hindlegR1'), ('lefteye', 'righteye'),
    ('lshoulder', 'rshoulder'), ('knee_lft', 'knee_rgt'),
    ('rightEyeInner', 'leftEyeInner'), ('Left Eye 2', 'Right Eye 2'),
    ('hand.left', 'hand.right'), ('paw_FL', 'paw_FR'), ('LB hoof', 'RB hoof'),
    ('Left_Ear', 'right ear'), ('left_r_fin', 'right_r_fin'), ('L', 'R'),
]  # yapf: disable


@pytest.mark.parametrize('left, right', PAIRS)
def test_a_pair_is_found_in_any_spelling(left, right):
    names = ['Nose', left, 'tail', right]
    assert find_pairs(names) == {left: right, right: left}
    assert find_unpaired(names, find_pairs(names)) == []
    swaps = [p['swap'] for p in keypoints.make_metainfo(names)[
        'keypoint_info'].values()]
    assert swaps == ['', right, '', left]


@pytest.mark.parametrize('names', [
    ['nose', 'tail'], ['L1', 'L2', 'T12'], ['lip', 'rim'],
    ['upper_lip', 'lower_lip'], ['rear', 'lead'], ['light', 'bright'],
    ['left_right_middle', 'nose']])
def test_names_without_a_side_get_no_pair(names):
    assert find_pairs(names) == {}
    assert find_unpaired(names) == []


@pytest.mark.parametrize('names, unpaired', [
    (['L_Ear', 'nose'], ['L_Ear']), (['leftmost', 'nose'], ['leftmost']),
    (['left_ear', 'right_paw'], ['left_ear', 'right_paw']),
    (['LEar', 'R_Paw'], ['LEar', 'R_Paw'])])
def test_names_of_one_side_only_look_unpaired(names, unpaired):
    assert find_pairs(names) == {}
    assert find_unpaired(names) == unpaired


def test_a_name_that_several_others_mirror_gets_no_pair():
    names = ['left_ear', 'Left Ear', 'right_ear']
    assert find_pairs(names) == {}
    with pytest.raises(ValueError, match='have no counterpart'):
        keypoints.make_metainfo(names)


def test_an_abbreviated_side_without_counterpart_causes_a_warning():
    with pytest.warns(UserWarning, match=r"\['L_Ear'\] look like one side"):
        info = keypoints.make_metainfo(['L_Ear', 'nose'])
    assert info['keypoint_info'][0]['swap'] == ''


def test_pairs_agree_with_all_metainfo_files_of_mmpose():
    mmpose = pytest.importorskip('mmpose')
    folder = Path(mmpose.__file__).parent / '.mim/configs/_base_/datasets'
    files = sorted(folder.glob('*.py'))
    assert len(files) > 50
    found = 0
    for file in files:
        points = Config.fromfile(file).dataset_info['keypoint_info'].values()
        swaps = {p['name']: p['swap'] for p in points
                 if p.get('swap') and p['swap'] != p['name']}
        names = [p['name'] for p in points]
        pairs = find_pairs(names)
        assert all(swaps.get(a) == b for a, b in pairs.items()), file.name
        assert find_unpaired(names, {*swaps}) == [], file.name
        found += len(pairs)
    assert found > 900
