# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
import json

import cv2
import numpy as np
import pytest

from hrformer_mm.quickstart.synthetic import bodies, drawing, people

SPLITS = ('train2017', 'val2017')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """24 + 8 images."""
    root = tmp_path_factory.mktemp('people')
    people.make_people(root, 24, 8, seed=3)
    return root


@pytest.fixture(scope='module', params=SPLITS)
def split(request, folder):
    """Return the COCO annotations of a split and its image folder."""
    path = folder / 'annotations' / f'person_keypoints_{request.param}.json'
    return json.loads(path.read_text()), folder / request.param


def labelled(annotation):
    points = np.array(annotation['keypoints']).reshape(17, 3)
    return points, points[:, 2] > 0


def test_the_same_seed_gives_the_same_files(folder, tmp_path):
    people.make_people(tmp_path, 24, 8, seed=3)
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    assert len(files) == 24 + 8 + 2
    for file in files:
        assert file.read_bytes() == (
            tmp_path / file.relative_to(folder)).read_bytes()


def test_seeds_and_splits_differ(folder, tmp_path):
    people.make_people(tmp_path, 2, 2, seed=4)
    first = [(root / split / f'{1:012d}.jpg').read_bytes()
             for root in (folder, tmp_path) for split in SPLITS]
    assert len(set(first)) == 4


def test_a_larger_dataset_begins_with_the_same_images(folder, tmp_path):
    people.make_people(tmp_path, 3, 1, seed=3)
    for i in (1, 2, 3):
        name = f'train2017/{i:012d}.jpg'
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_images_match_the_annotation_file(split):
    content, images = split
    assert len(list(images.iterdir())) == len(content['images'])
    for entry in content['images']:
        image = cv2.imread(str(images / entry['file_name']))
        assert image.shape == (entry['height'], entry['width'], 3)


def test_ids_are_unique_and_refer_to_each_other(split):
    content, _ = split
    ids = [a['id'] for a in content['annotations']]
    assert len(set(ids)) == len(ids)
    assert {a['image_id'] for a in content['annotations']} <= {
        i['id'] for i in content['images']}


def test_categories_are_those_of_coco(split):
    category, = split[0]['categories']
    coco = pytest.importorskip('mmengine').Config.fromfile(
        pytest.importorskip('mmpose').__path__[0] +
        '/.mim/configs/_base_/datasets/coco.py').dataset_info
    info = coco['keypoint_info']
    assert category['keypoints'] == [info[i]['name'] for i in range(17)]
    names = [tuple(category['keypoints'][j - 1] for j in bone)
             for bone in category['skeleton']]
    links = coco['skeleton_info'].values()
    assert names == [tuple(link['link']) for link in links]


def test_labelled_keypoints_are_in_the_image_and_others_are_zero(split):
    content, _ = split
    size = {i['id']: (i['width'], i['height']) for i in content['images']}
    for annotation in content['annotations']:
        points, known = labelled(annotation)
        assert annotation['num_keypoints'] == known.sum()
        assert not points[~known].any()
        assert (points[known, :2] > -.51).all()  # pixels have a width
        assert (points[known, :2] <
                np.array(size[annotation['image_id']]) - .49).all()


def test_visible_keypoints_lie_in_the_box_and_on_the_person(split):
    for annotation in split[0]['annotations']:
        points, _ = labelled(annotation)
        seen = points[points[:, 2] == 2, :2]
        x, y, w, h = annotation['bbox']
        assert (seen > np.array([x, y]) - 1).all()
        assert (seen < np.array([x + w, y + h]) + 1).all()
        outlines = [np.array(p, np.float32).reshape(-1, 1, 2)
                    for p in annotation['segmentation']]
        for point in seen.tolist():
            assert max(
                cv2.pointPolygonTest(o, point, True) for o in outlines) > -1.5


def test_area_is_that_of_the_person_not_of_the_box(split):
    ratios = [a['area'] / (a['bbox'][2] * a['bbox'][3])
              for a in split[0]['annotations']]
    assert 0.25 < np.mean(ratios) < 0.55  # COCO: about 0.45
    assert max(ratios) <= 1


def test_keypoints_of_every_visibility_occur(folder):
    path = folder / 'annotations/person_keypoints_train2017.json'
    values = np.concatenate([
        labelled(a)[0][:, 2]
        for a in json.loads(path.read_text())['annotations']
    ])
    share = [np.mean(values == v) for v in (0, 1, 2)]
    assert share[0] > .002 and .03 < share[1] < .3 and share[2] > .6


@pytest.mark.parametrize('api', ['pycocotools', 'xtcocotools'])
def test_annotations_evaluated_against_themselves_have_the_best_score(
        folder, api):
    coco = pytest.importorskip(f'{api}.coco')
    evaluation = pytest.importorskip(f'{api}.cocoeval')
    path = folder / 'annotations/person_keypoints_val2017.json'
    truth = coco.COCO(str(path))
    found = [
        dict(image_id=a['image_id'], category_id=1, score=1.,
             keypoints=a['keypoints'])
        for a in truth.anns.values() if a['num_keypoints']
    ]
    extra = ([np.full(17, .05)] if api == 'xtcocotools' else [])
    run = evaluation.COCOeval(truth, truth.loadRes(found), 'keypoints', *extra)
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert run.stats[0] == 1


def test_masks_of_the_outlines_have_the_area(folder):
    coco = pytest.importorskip('pycocotools.coco').COCO(
        str(folder / 'annotations/person_keypoints_val2017.json'))
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation).astype(bool)
        # Holes are filled, and the outline runs through pixel centres.
        assert mask.sum() == pytest.approx(annotation['area'], rel=.3)


def test_left_is_to_the_right_in_the_image():
    rng = np.random.default_rng(0)
    for _ in range(50):
        body = bodies.sample_body(rng)
        for joint in (bodies.EYE, bodies.EAR, bodies.SHOULDER, bodies.HIP):
            assert body.at(joint, 1)[0] > body.at(joint, -1)[0] - .01


def test_a_mirrored_body_is_a_body_again():
    """So flipping an image and swapping sides keeps labels right."""
    rng = np.random.default_rng(1)
    swap = [0] + [j for i in range(1, 17, 2) for j in (i + 1, i)]
    many = np.stack([bodies.sample_body(rng).joints for _ in range(3000)])
    mirrored = many[:, swap] * (-1, 1)
    # 3000 samples of a spread of at most 0.2 have a mean good to 0.004.
    np.testing.assert_allclose(
        many.mean(0), mirrored.mean(0), atol=.02)
    np.testing.assert_allclose(many.std(0), mirrored.std(0), atol=.02)


def test_a_covered_person_is_labelled_as_covered():
    rng = np.random.default_rng(2)
    canvas = drawing.Canvas(np.zeros((240, 320, 3), np.uint8))
    body = bodies.place_body(
        bodies.sample_body(rng), 180, 0, np.array([160., 130.]))
    drawing.draw_person(canvas, body, drawing.sample_look(rng), 1, 180, rng)
    before = people.label_points(canvas, body, 1)
    knee = body.joints[bodies.KNEE]
    canvas.ellipse(knee, (9, 9), (0, 0, 0), people.OCCLUDER)
    after = people.label_points(canvas, body, 1)
    assert before[bodies.KNEE, 2] == 2 and after[bodies.KNEE, 2] == 1
    np.testing.assert_array_equal(before[:, :2], after[:, :2])


def test_barely_visible_people_have_no_keypoints():
    rng = np.random.default_rng(2)
    canvas = drawing.Canvas(np.zeros((240, 320, 3), np.uint8))
    body = bodies.place_body(
        bodies.sample_body(rng), 180, 0, np.array([160., 130.]))
    drawing.draw_person(canvas, body, drawing.sample_look(rng), 1, 180, rng)
    drawn = people.pixels_of(canvas, 1).sum()
    x = int(body.head[0])
    canvas.parts[:, :x] = people.OCCLUDER
    canvas.parts[int(body.joints[bodies.SHOULDER, 1]):] = people.OCCLUDER
    annotation = people.annotate(canvas, body, 1, drawn)
    assert annotation['num_keypoints'] == 0
    assert not any(annotation['keypoints'])
    canvas.parts[:] = people.OCCLUDER
    assert people.annotate(canvas, body, 1, drawn) is None
