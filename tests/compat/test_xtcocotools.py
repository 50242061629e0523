# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""COCO evaluation through pycocotools equals that of xtcocotools.

The numbers of the real xtcocotools are in ``data/xtcocotools.json``; where it
can be imported, it is compared directly too. After a change of the cases::

    PYTHONPATH=tests python tests/compat/test_xtcocotools.py  # writes the file

which needs the real one.
"""
import json
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ROOT
from numpy.random import RandomState

from hrformer_mm.compat import XtcocotoolsFinder

pytest.importorskip('pycocotools')
NUMBERS = ROOT / 'tests/data/xtcocotools.json'
PARTS = dict(keypoints=17, foot_kpts=6, face_kpts=68, lefthand_kpts=21,
             righthand_kpts=21)  # yapf: disable
SIGMAS = dict(
    keypoints=17, keypoints_crowd=14, keypoints_foot=6, keypoints_face=68,
    keypoints_lefthand=21, keypoints_righthand=21, keypoints_wholebody=133)
WHOLE_BODY = ('keypoints_wholebody', 'keypoints_foot', 'keypoints_face',
              'keypoints_lefthand', 'keypoints_righthand')
# Name of a case: IoU type, use_area, sigmas, and what is special in the data.
CASES: dict[str, tuple[str, bool, bool, str]] = {
    'keypoints': ('keypoints', True, False, ''),
    'sigmas': ('keypoints', True, True, ''),
    'boxes for areas': ('keypoints', False, True, 'no area'),
    'boxes in place of areas': ('keypoints', False, True, ''),
    'ids from zero': ('keypoints', True, True, 'zero'),
    'no results': ('keypoints', True, True, 'none'),
    'no annotations': ('keypoints', True, True, 'unlabelled'),
    'crowd': ('keypoints_crowd', False, True, 'no area'),
    'crowd with areas': ('keypoints_crowd', True, True, ''),
    'crowd without hard images': ('keypoints_crowd', False, True, 'easy'),
    'bbox': ('bbox', True, False, ''),
    'segm': ('segm', True, False, ''),
    **{kind: (kind, True, True, '') for kind in WHOLE_BODY},
    'parts without scores': ('keypoints_face', True, True, 'no scores'),
}  # yapf: disable


def points(random: RandomState, box: list[float], count: int,
           unlabelled: float) -> list[float]:
    """Keypoints in a box; some are not labelled."""
    x, y, w, h = box
    found = random.rand(count, 3) * (w, h, 1) + (x, y, 0)
    found[:, 2] = np.where(random.rand(count) < unlabelled, 0,
                           random.randint(1, 3, count))
    return found.flatten().tolist()


def make_person(random: RandomState, image: int, number: int, count: int,
                unlabelled: float) -> dict:
    box = (random.rand(4) * (300, 200, 150, 200) + (0, 0, 5, 5)).tolist()
    person: dict[str, Any] = {
        name: points(random, box, count if name == 'keypoints' else size,
                     unlabelled)
        for name, size in PARTS.items()
    }
    person.update(
        id=number, image_id=image, category_id=1, bbox=box,
        area=box[2] * box[3] * .6, iscrowd=int(random.rand() < .1),
        segmentation=[[box[0], box[1], box[0] + box[2], box[1],
                       box[0] + box[2], box[1] + box[3]]],
        num_keypoints=sum(v > 1 for v in person['keypoints'][2::3]))
    if random.rand() < .2:  # absent means no crowd
        del person['iscrowd']
    return person


def make_result(random: RandomState, person: dict, scores: bool) -> dict:
    """A result near a person, and now and then one that scores nothing."""
    spread = random.choice([1, 5, 20, 80])
    result: dict[str, Any] = dict(
        image_id=person['image_id'], category_id=1,
        score=round(random.rand(), 2))
    for name in PARTS:
        found = np.reshape(person[name], (-1, 3)).copy()
        found[:, :2] += random.randn(len(found), 2) * spread
        found[:, 2] = random.rand(len(found)) * (random.rand() > .1)
        result[name] = found.flatten().tolist()
        if scores:
            part = name.replace('keypoints', 'wholebody').partition('_')[0]
            result[f'{part}_score'] = float(random.rand())
    return result


def make_case(name: str) -> tuple[dict, list[dict]]:
    """Annotations and results; equal for all versions of NumPy."""
    kind, _, _, special = CASES[name]
    random = RandomState(len(name))
    count = SIGMAS.get(kind, 17) if kind not in WHOLE_BODY else 17
    images = [dict(id=i, file_name=f'{i}.jpg', width=500, height=500,
                   crowdIndex=float(random.rand()))
              for i in range(12)]  # yapf: disable
    if special == 'easy':
        for image in images:
            image['crowdIndex'] *= .5
    people = [make_person(random, i, 0, count, (.2, .7, 1.)[i % 3])
              for i in range(12) for _ in range(random.randint(5))]
    for number, person in enumerate(people):
        person['id'] = number + (special != 'zero')
        if special in ('no area', 'easy'):
            del person['area']
        if special == 'unlabelled':
            person['keypoints'][2::3] = [0] * 17
    results = [make_result(random, person, special != 'no scores')
               for person in people for _ in range(random.randint(3))]
    results += [make_result(random, make_person(random, i, 0, count, 0),
                            special != 'no scores') for i in range(12)]
    if kind in ('bbox', 'segm'):
        for result, person in zip(results, people):
            shift = random.randn(4) * 4
            result['bbox'] = np.abs(person['bbox'] + shift).tolist()
        results = [r for r in results if 'bbox' in r]
    data = dict(images=images, annotations=people,
                categories=[dict(id=1, name='person')])  # yapf: disable
    return data, [] if special == 'none' else results


def evaluate(package: Any, name: str, folder: Path) -> dict[str, Any]:
    """Everything that an evaluation computes."""
    data, results = make_case(name)
    kind, use_area, with_sigmas, _ = CASES[name]
    (folder / 'truth.json').write_text(json.dumps(data))
    (folder / 'results.json').write_text(json.dumps(results))
    sigmas = None
    if with_sigmas:
        sigmas = RandomState(1).rand(SIGMAS[kind]) * .1 + .02
    with redirect_stdout(StringIO()):
        truth = package.coco.COCO(str(folder / 'truth.json'))
        found = truth.loadRes(str(folder / 'results.json'))
        evaluation = package.cocoeval.COCOeval(truth, found, kind, sigmas,
                                               use_area)
        evaluation.evaluate()
        evaluation.accumulate()
        arrays = {key: evaluation.eval[key].copy()
                  for key in ('precision', 'recall', 'scores')}
        matches = evaluation.evalImgs
        evaluation.summarize()
    return dict(arrays, stats=evaluation.stats, matches=matches)


def summary(found: dict[str, Any]) -> dict[str, list[float]]:
    """The part of an evaluation that is kept in the file."""
    return {
        'stats': found['stats'].tolist(),
        **{key: [float(x) for x in (found[key].sum(), found[key].std())]
           for key in ('precision', 'recall', 'scores')}
    }


@pytest.fixture
def ours():
    from hrformer_mm.compat import xtcocotools
    from hrformer_mm.compat.xtcocotools import coco, cocoeval
    assert coco and cocoeval
    return xtcocotools


@pytest.mark.filterwarnings('ignore:.*not found, use')
@pytest.mark.parametrize('name', CASES)
def test_evaluation_equals_the_numbers_of_xtcocotools(name, ours, tmp_path):
    found = summary(evaluate(ours, name, tmp_path))
    wanted = json.loads(NUMBERS.read_text())[name]
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-12, atol=1e-12)


def test_the_cases_have_different_results():
    numbers = json.loads(NUMBERS.read_text())
    assert numbers.keys() == CASES.keys()
    for name, wanted in numbers.items():
        if not name.startswith('no '):
            assert 0 < wanted['stats'][0] < 1, name
    assert len({str(wanted['stats']) for wanted in numbers.values()}) >= (
        len(CASES) - 1)  # two have nothing to evaluate


def is_xtcocotools(name: str) -> bool:
    return name.partition('.')[0] == 'xtcocotools'


@cache
def real_xtcocotools():
    """Import the compiled one past compat, or return None."""
    kept = {n: m for n, m in sys.modules.items() if is_xtcocotools(n)}
    finders = sys.meta_path[:]
    for name in kept:
        if not name.endswith('_mask'):
            del sys.modules[name]
    sys.meta_path[:] = [
        f for f in finders if not isinstance(f, XtcocotoolsFinder)
    ]
    try:
        import xtcocotools.mask
        from xtcocotools import coco, cocoeval
        assert coco and cocoeval
        return xtcocotools
    except (ImportError, ValueError, AttributeError):
        return None
    finally:
        sys.meta_path[:] = finders
        for name in list(filter(is_xtcocotools, sys.modules)):
            del sys.modules[name]
        sys.modules.update(kept)


def makes_masks(package: Any) -> bool:
    """Version 1.14.3 cannot with numpy 2, and needs them for boxes."""
    try:
        package.mask.decode(
            package.mask.encode(np.ones((1, 1, 1), 'u1', order='F')))
    except AttributeError:
        return False
    return True


@pytest.mark.filterwarnings('ignore:.*not found, use')
@pytest.mark.parametrize('name', CASES)
def test_evaluation_equals_xtcocotools_itself(name, ours, tmp_path):
    real = real_xtcocotools()
    if real is None:
        pytest.skip('no compiled xtcocotools')
    if CASES[name][0] in ('bbox', 'segm') and not makes_masks(real):
        pytest.skip('this xtcocotools makes no masks')
    found = evaluate(ours, name, tmp_path)
    wanted = evaluate(real, name, tmp_path)
    for key in ('stats', 'precision', 'recall', 'scores'):
        np.testing.assert_array_equal(found[key], wanted[key])
    for a, b in zip(found['matches'], wanted['matches'], strict=True):
        assert (a is None) == (b is None)
        for key in b or ():
            np.testing.assert_array_equal(a[key], b[key], key)


def test_a_body_part_without_a_score_uses_that_of_the_person(ours, tmp_path):
    with pytest.warns(UserWarning, match="'face_score' not found"):
        evaluate(ours, 'parts without scores', tmp_path)


def test_annotations_without_areas_are_rejected_where_areas_are_used(
        ours, tmp_path):
    data, results = make_case('crowd')
    truth = ours.coco.COCO(ann_data=data)
    evaluation = ours.cocoeval.COCOeval(
        truth, truth.loadRes('unused.json', results), 'keypoints',
        np.full(14, .05))
    with pytest.raises(KeyError, match='use_area=False'):
        evaluation.evaluate()


def test_annotations_are_not_changed_by_an_evaluation(ours):
    data, results = make_case('keypoints_face')
    truth = ours.coco.COCO(ann_data=data)
    found = truth.loadRes(results)
    before = json.dumps([truth.anns, found.anns], default=str)
    evaluation = ours.cocoeval.COCOeval(truth, found, 'keypoints_face',
                                        np.full(68, .05))
    evaluation.evaluate()
    after = json.dumps([
        {k: {n: v for n, v in ann.items() if n != 'ignore'}
         for k, ann in anns.items()} for anns in (truth.anns, found.anns)
    ], default=str)  # yapf: disable
    assert before == after


def test_crowd_summary_prints_no_areas(ours, tmp_path, capsys):
    data, results = make_case('crowd')
    truth = ours.coco.COCO(ann_data=data)
    evaluation = ours.cocoeval.COCOeval(
        truth, truth.loadRes(results), 'keypoints_crowd', np.full(14, .05),
        use_area=False)
    evaluation.evaluate()
    evaluation.accumulate()
    capsys.readouterr()
    evaluation.summarize()
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 9 and 'medium |' in out
    assert 'area=medium' not in out and evaluation.params.iouType == (
        'keypoints_crowd')


def test_only_some_keypoints_and_areas_are_taken(ours):
    data, _ = make_case('keypoints')
    before = data['annotations'][0]['keypoints'].copy()
    truth = ours.coco.COCO('unused.json', [2, 0], data)
    assert truth.dataset['annotations'][0]['keypoints'] == (
        before[6:9] + before[:3])
    area = data['annotations'][0]['area']
    number = data['annotations'][0]['id']
    assert number in truth.getAnnIds(areaRng=[area, area + 1])
    assert number not in truth.getAnnIds(areaRng=[area - 1, area])


SERVED = '''
import hrformer_mm, sys
assert 'pycocotools' not in sys.modules
from xtcocotools.coco import COCO
from xtcocotools.cocoeval import COCOeval
import xtcocotools.mask as mask
print(COCO.__module__, mask.__file__)
'''


def run_python(code: str, *path: Path) -> str:
    """Run code in a new process that finds modules in ``path`` first."""
    folders = [str(folder) for folder in (*path, ROOT)]
    start = f'import sys; sys.path[:0] = {folders}\n'
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', start + code],
                          check=True,
                          capture_output=True,
                          text=True).stdout


def write_xtcocotools(folder: Path, mask: str) -> Path:
    """A package that looks like xtcocotools, with that extension."""
    package = folder / 'xtcocotools'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / '_mask.py').write_text(
        'def encode(mask): pass\ndef decode(mask): pass\n' + mask)
    (package / 'mask.py').write_text('import xtcocotools._mask')
    (package / 'coco.py').write_text(
        'from . import mask\nclass COCO: pass')
    (package / 'cocoeval.py').write_text('class COCOeval: pass')
    return folder


@pytest.fixture
def no_torch(tmp_path) -> Path:
    """A folder that hides torch, which takes seconds to import."""
    (tmp_path / 'torch.py').write_text('raise ImportError')
    return tmp_path


def test_an_xtcocotools_that_works_is_not_replaced(no_torch, tmp_path):
    out = run_python(SERVED, write_xtcocotools(tmp_path, 'works = True'))
    assert str(tmp_path) in out


@pytest.mark.parametrize('mask', [
    "raise ImportError('numpy.core.multiarray failed to import')",
    "raise ValueError('numpy.dtype size changed')",
    "raise AttributeError('_ARRAY_API not found')",
    "def decode(mask): raise AttributeError('NPY_OWNDATA')",
])
def test_an_xtcocotools_for_another_numpy_is_replaced(mask, no_torch,
                                                      tmp_path):
    out = run_python(SERVED, write_xtcocotools(tmp_path, mask))
    assert str(tmp_path) not in out
    assert str(Path('hrformer_mm/compat/xtcocotools/mask.py')) in out


def test_mmpose_reads_and_evaluates_without_xtcocotools(tmp_path):
    pytest.importorskip('mmpose')
    out = run_python(
        'import hrformer_mm\n'
        'from mmpose.datasets import CocoDataset\n'
        'from mmpose.evaluation import CocoMetric, CocoWholeBodyMetric\n'
        'from mmpose.evaluation.metrics import coco_metric as module\n'
        'print(module.COCOeval.__init__.__code__.co_filename)',
        write_xtcocotools(tmp_path, "raise ImportError('broken')"))
    assert str(Path('hrformer_mm/compat/xtcocotools/cocoeval.py')) in out


def main():
    """Write the numbers of the real xtcocotools."""
    from tempfile import TemporaryDirectory
    real = real_xtcocotools()
    assert real is not None and makes_masks(real), (
        'needs a compiled xtcocotools, and numpy 1')
    with TemporaryDirectory() as folder:
        numbers = {name: summary(evaluate(real, name, Path(folder)))
                   for name in CASES}
    lines = [f' {json.dumps(name)}: {json.dumps(found)}'
             for name, found in numbers.items()]
    NUMBERS.write_text('{\n' + ',\n'.join(lines) + '\n}\n')


if __name__ == '__main__':
    main()
