# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Check data sets of MMPose: annotation files of key points, and images.

The files are read here once more, because MMPose leaves out what it cannot
train on without a word and stops at the first list of a wrong length.
"""
import json
from collections import Counter
from math import isfinite
from pathlib import Path
from typing import (Any, Collection, Dict, Iterator, List, Mapping, Optional,
                    Sequence)

from mmengine.config import Config

from .check import Problem, Summary, map_threads, probe_image, spread
from .key_points import mirror_of

# What evaluation reads of every annotation, besides the box.
NEEDED = ('id', 'image_id', 'category_id', 'area', 'num_keypoints')
VISIBILITIES = (0, 1, 2)
MARGIN = 1  # pixels that labels may reach out of their image, by rounding


def read_metainfo(dataset: Mapping) -> dict:
    """Names, pairs and sigmas of key points, as they are written down."""
    info = dataset.get('metainfo')
    if not info:
        from mmpose.registry import DATASETS
        info = DATASETS.get(dataset['type']).METAINFO
    if 'from_file' in info:
        path = Path(info['from_file'])
        if not path.is_file():  # where MMPose looks for it, too
            import mmpose
            path = Path(mmpose.__file__).with_name('.mim').joinpath(
                'configs/_base_/datasets', path.name)
        info = Config.fromfile(path).dataset_info
    return info


def check_pairs(points: Mapping[str, Mapping]) -> Iterator[str]:
    """Faults of the pairs that swap in mirrored images."""
    for name, point in points.items():
        other = point.get('swap') or ''
        if other and other not in points:
            yield f'{name} swaps with {other}, which is no key point'
        elif other and points[other].get('swap') != name:
            yield (f'{name} swaps with {other}, but {other} with '
                   f"{points[other].get('swap') or 'none'}")
        elif not other and mirror_of(name) in points:
            yield (f'{name} swaps with none in mirrored images, although '
                   f'there is {mirror_of(name)}')


def check_metainfo(info: Mapping) -> Iterator[Problem]:
    """Faults of names, pairs, links, sigmas and weights of key points."""
    where = f"metainfo of {info.get('dataset_name')}"
    listed = [point['name'] for point in info['keypoint_info'].values()]
    points = {p['name']: p for p in info['keypoint_info'].values()}
    if len(points) < len(listed):
        yield Problem(where, f'has a name twice: {listed}')
    for fault in check_pairs(points):
        yield Problem(where, f'says that {fault}')
    for link in info['skeleton_info'].values():
        unknown = [end for end in link['link'] if end not in points]
        if unknown:
            yield Problem(where, f'links {unknown}, which are no key points')
    for key in ('sigmas', 'joint_weights'):
        if len(info[key]) != len(listed):
            yield Problem(where, f'has {len(info[key])} {key} for '
                          f'{len(listed)} key points')
    if not all(sigma > 0 for sigma in info['sigmas']):
        yield Problem(where, 'has sigmas that are not positive: '
                      f"{list(info['sigmas'])}")


def check_head(cfg: Config, info: Mapping) -> Iterator[Problem]:
    """Compare the number of key points with that of the head."""
    points = len(info['keypoint_info'])
    outputs = cfg.model.get('head', {}).get('out_channels', points)
    if outputs != points:
        yield Problem('model.head.out_channels', f'is {outputs}, but the data '
                      f'set has {points} key points')


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: If it is none; says where it breaks.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not JSON: {error}') from error


def is_outside(points: Sequence[Sequence[float]], image: Mapping) -> bool:
    """Whether any point x, y is outside the image, beyond rounding."""
    return any(not (-MARGIN <= x <= image['width'] + MARGIN
                    and -MARGIN <= y <= image['height'] + MARGIN)
               for x, y in points)


def size_of(image: Mapping) -> str:
    return f"{image['width']} x {image['height']}"


def check_box(box: Sequence) -> Optional[str]:
    """What is wrong with a box x, y, width, height, if anything."""
    if len(box) != 4 or not all(isfinite(value) for value in box):
        return f'has the box {box}; it must be x, y, width, height'
    if min(box[2:]) <= 0:
        return f'has a box without area, {box}'
    return None


def check_place(box: Sequence, image: Mapping) -> Optional[str]:
    """What is wrong with a labelled box of an image, if anything."""
    fault = check_box(box)
    if fault:
        return fault
    x, y, w, h = box
    if is_outside([(x, y), (x + w, y + h)], image):
        return f'has the box {box}, outside its image of {size_of(image)}'
    return None


def check_points(points: Sequence, names: Sequence[str],
                 image: Mapping) -> Iterator[str]:
    """Faults of a list of x, y, visibility for each key point."""
    if len(points) != 3 * len(names):
        yield (f'has {len(points)} numbers for key points; {len(names)} key '
               f'points have {3 * len(names)}')
        return
    wrong = sorted({*points[2::3]} - {*VISIBILITIES})
    if wrong:
        yield (f'has the visibilities {wrong}; 0 is not labelled, 1 hidden, '
               '2 visible')
    for name, x, y, seen in zip(names, points[::3], points[1::3],
                                points[2::3]):
        if seen and is_outside([(x, y)], image):
            yield (f'has {name} at ({x}, {y}), outside its image of '
                   f'{size_of(image)}')


def check_annotation(annotation: Mapping, names: Sequence[str],
                     image: Mapping) -> Iterator[str]:
    """Faults of one annotation of an image."""
    lacking = [k for k in (*NEEDED, 'bbox', 'keypoints')
               if k not in annotation]
    if lacking:
        yield f"lacks {', '.join(lacking)}"
        return
    fault = check_place(annotation['bbox'], image)
    if fault:
        yield fault
    points = annotation['keypoints']
    yield from check_points(points, names, image)
    labelled = sum(seen > 0 for seen in points[2::3])
    if annotation['num_keypoints'] != labelled:
        yield (f"says num_keypoints {annotation['num_keypoints']}, but "
               f'{labelled} are labelled')
    if labelled and not annotation['area'] > 0:
        yield f"has the area {annotation['area']}, by which AP divides"


def twice(items: Sequence[Mapping], what: str, source: Path) -> List[Problem]:
    """Numbers that several items have: the last of them replaces others."""
    found = Counter(item.get('id') for item in items)
    return [
        Problem(str(source), f'has {count} {what} of id {number}')
        for number, count in found.items() if count > 1
    ]


def is_trained_on(annotation: Mapping) -> bool:
    return bool(
        annotation.get('num_keypoints') and not annotation.get('iscrowd'))


def check_content(content: Mapping, chosen: Mapping[int, Mapping],
                  names: Sequence[str], source: Path) -> Summary:
    """Check the annotations of chosen images, by their id.

    A file without annotations lists images to predict.
    """
    known = {image['id'] for image in content['images']}
    counts: Counter = Counter()
    labelled = dict.fromkeys(names, 0)
    problems = twice(content['images'], 'images', source)
    annotations = content.get('annotations', ())
    problems += twice(annotations, 'annotations', source)
    for annotation in annotations:
        where = f"{source}, annotation {annotation.get('id')}"
        image = annotation.get('image_id')
        if image not in known:
            problems.append(Problem(where, f'is of image {image}, which is '
                                    'not in the list'))
        if image not in chosen:
            continue
        problems += [  # those that MMPose stops at, it meets at the start
            Problem(where, fault, fatal=False)
            for fault in check_annotation(annotation, names, chosen[image])
        ]
        counts[is_trained_on(annotation)] += 1
        for name, seen in zip(names, annotation.get('keypoints', ())[2::3]):
            labelled[name] += seen > 0
    if 'annotations' in content and not counts[True]:
        problems.append(Problem(str(source), 'has no instance with key '
                                'points that is not a crowd'))
    return Summary({
        'images': len(chosen),
        'instances': counts[True],
        'instances left out (crowds, or without key points)': counts[False]
    }, labelled, problems, kind='key points')


def check_files(images: Sequence[Mapping], folder: Path, workers: int,
                summary: Summary):
    """Read image files, and compare their sizes with the annotations'."""
    paths = [str(folder / image['file_name']) for image in images]
    found = map_threads(probe_image, paths, workers)
    for image, path, (size, problem) in zip(images, paths, found):
        written = (image['width'], image['height'])
        if size and size != written:
            summary.problems.append(
                Problem(path, f'is {size[0]} x {size[1]}, its annotation says '
                        f'{written[0]} x {written[1]} (width x height)'))
        summary.sizes += [size] * (size is not None)
        summary.problems += [problem] * (problem is not None)


def check_detections(path: Path, images: Collection[int],
                     chosen: Collection[int]) -> Iterator[Problem]:
    """Faults of the boxes that evaluation takes instead of the labelled.

    Detectors may give boxes that reach out of their image.
    """
    for number, found in enumerate(read_json(path)):
        where, image = f'{path}, box {number}', found.get('image_id')
        if image not in images:
            yield Problem(where, f'is of image {image}, which the annotations '
                          'lack')
        elif image in chosen:
            fault = check_box(found['bbox'])
            if fault:
                yield Problem(where, fault)


def check_dataset(dataset: Mapping, names: Sequence[str],
                  limit: Optional[int], workers: int) -> Summary:
    """Check the files of one data set."""
    root = Path(dataset.get('data_root') or '')
    source = root / dataset['ann_file']
    content = read_json(source)
    if 'images' not in content:
        raise ValueError(f'{source} is not in the format of COCO: it has no '
                         'images')
    images = content['images']
    picked = [images[i] for i in spread(len(images), limit)]
    chosen = {image['id']: image for image in picked}
    summary = check_content(content, chosen, names, source)
    if dataset.get('bbox_file'):
        summary.problems += check_detections(
            Path(dataset['bbox_file']), {image['id'] for image in images},
            chosen)
    folder = root / dataset.get('data_prefix', {}).get('img', '')
    check_files(picked, folder, workers, summary)
    return summary


def check_loaders(cfg: Config, loaders: Sequence[str], limit: Optional[int],
                  workers: int) -> Dict[str, Summary]:
    """Check the data sets of loaders, and the head against them.

    Raises:
        ValueError: For a data set without an annotation file of its own.
    """
    result = {}
    for loader in loaders:
        dataset = cfg[loader].dataset
        if not dataset.get('ann_file'):
            raise ValueError(f'{loader} has a {dataset.type} without '
                             'ann_file; only COCO files can be checked')
        info = read_metainfo(dataset)
        names = [point['name'] for point in info['keypoint_info'].values()]
        summary = check_dataset(dataset, names, limit, workers)
        summary.problems[:0] = [*check_metainfo(info), *check_head(cfg, info)]
        result[loader] = summary
    return result
