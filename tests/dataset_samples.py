# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Small generated datasets in the formats that the frameworks read.

Each entry of :data:`SAMPLES` writes a few images and annotations in the files
and folders of a published dataset, and says how a config names them. All
numbers are random; keys, types and layout are those of the dataset.
"""
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

IMAGES = 4  # of each split
WIDTH, HEIGHT = 96, 80
SPLITS = ('train', 'val')
Write = Callable[[Path], Any]


@dataclass(frozen=True)
class Sample:
    """A dataset in a published format.

    Attributes:
        task: pose, seg or cls.
        write: Write the files of all splits below a folder.
        dataset: Config of a split without pipeline; ``{}`` in a value is
            replaced by the folder.
        evaluator: Metric of the dataset's recipes in the frameworks.
        metric: Its result, as ``save_best`` names it.
        classes: Number of classes, 0 for keypoints.
    """
    task: str
    write: Write
    dataset: Callable[[str], dict[str, Any]]
    evaluator: Any
    metric: str
    classes: int = 0


def write_image(path: Path, rng: np.random.Generator,
                size: Sequence[int] = (HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rng.integers(0, 255, (*size, 3), 'u1'))


# Keypoints


@dataclass(frozen=True)
class Pose:
    """Format of the annotations of one dataset of keypoints.

    Attributes:
        points: Number of keypoints.
        name: File name of an image, from its split and number.
        more: Further keys of an annotation, from it and the generator.
        drop: Keys of COCO that its annotations lack.
        image: Further keys of an image.
        categories: Category ids, drawn at random.
        size: Height and width of the images.
    """
    points: int
    name: Callable[[str, int], str] = lambda split, i: f'{i:012d}.jpg'
    more: Callable[[dict, np.random.Generator], Mapping] = lambda a, rng: {}
    drop: Sequence[str] = ()
    image: Mapping[str, Any] = field(default_factory=dict)
    categories: Sequence[int] = (1, )
    size: Sequence[int] = (HEIGHT, WIDTH)


def triplets(rng: np.random.Generator, box: Sequence[float], points: int,
             seen: Sequence[float] = (0, 1, 2)) -> list[float]:
    """Random x, y, visibility inside a box; zeros where not labelled."""
    x, y, w, h = box
    found: list[float] = []
    for i in range(points):
        v = rng.choice(seen) if i else max(seen)  # one at least is labelled
        place = (rng.random(2) * (w, h) + (x, y)).round(1) if v else (0, 0)
        found += [float(place[0]), float(place[1]), v.item() if hasattr(
            v, 'item') else v]  # yapf: disable
    return found


def annotate(pose: Pose, rng: np.random.Generator, image: int,
             number: int) -> dict:
    """One annotation in COCO's format, as a dataset changes it."""
    height, width = pose.size
    x, y = (rng.random(2) * 20 + 3).round(1).tolist()
    w, h = ((rng.random(2) * .3 + .4) * (width, height)).round(1).tolist()
    found = dict(
        id=number, image_id=image, bbox=[x, y, w, h], iscrowd=0,
        area=round(w * h * .6, 1), segmentation=[],
        category_id=int(rng.choice(pose.categories)),
        keypoints=triplets(rng, (x, y, w, h), pose.points))
    found['num_keypoints'] = sum(v > 0 for v in found['keypoints'][2::3])
    found.update(pose.more(found, rng))
    return {k: v for k, v in found.items() if k not in pose.drop}


def write_coco(pose: Pose) -> Write:
    """Return a writer of annotations/{train,val}.json and their images."""

    def write(root: Path):
        rng = np.random.default_rng(0)
        (root / 'annotations').mkdir(parents=True)
        for split in SPLITS:
            images, found = [], []
            for i in range(1, IMAGES + 1):
                name = pose.name(split, i)
                write_image(root / 'images' / name, rng, pose.size)
                images.append(dict(
                    id=i, file_name=name, height=pose.size[0],
                    width=pose.size[1], **pose.image))
                found += [annotate(pose, rng, i, 10 * i + k)
                          for k in range(2)]
            (root / f'annotations/{split}.json').write_text(json.dumps(dict(
                info={}, licenses=[], images=images, annotations=found,
                categories=[dict(id=i, name=f'object {i}', keypoints=[],
                                 skeleton=[], supercategory='')
                            for i in pose.categories])))

    return write


def whole_body(annotation: dict, rng: np.random.Generator) -> dict:
    """Feet, face and hands, whose visibilities are scores."""
    box, found = annotation['bbox'], {}
    for part, points in (('foot', 6), ('face', 68), ('lefthand', 21),
                         ('righthand', 21)):
        key = 'foot_kpts' if part == 'foot' else f'{part}_kpts'
        found[key] = triplets(rng, box, points, (0., .4, 1.))
        if part != 'foot':
            found[f'{part}_box'] = box
            found[f'{part}_valid'] = bool(rng.integers(2))
    return found


def centred(annotation: dict, rng: np.random.Generator) -> dict:
    """Center and scale of 200 pixels, with which faces are annotated."""
    x, y, w, h = annotation['bbox']
    return dict(center=[x + w / 2, y + h / 2], scale=max(w, h) / 200)


def track(annotation: dict, rng: np.random.Generator) -> dict:
    """A box that reaches out of its image, as those of a tracker do."""
    x, y, w, h = annotation['bbox']
    return dict(track_id=1, bbox=[-4.5, y, w + 12, h], bbox_head=[x, y, 5, 6])


def human_art(annotation: dict, rng: np.random.Generator) -> dict:
    points = triplets(rng, annotation['bbox'], 21)
    return dict(keypoints_21=points, description='a dancer', annotator=2,
                num_keypoints_21=sum(v > 0 for v in points[2::3]))


def write_mpii(root: Path):
    """A list of people with joints, and head boxes for PCKh."""
    from scipy.io import savemat
    rng = np.random.default_rng(0)
    (root / 'annotations').mkdir(parents=True)
    for split in SPLITS:
        found = []
        for i in range(1, IMAGES + 1):
            name = f'{i + 10 * (split == "val"):09d}.jpg'
            write_image(root / 'images' / name, rng)
            for _ in range(2):
                joints = (rng.random((16, 2)) * (60, 50) + 10).round(1)
                visible = rng.integers(0, 2, 16)
                visible[0] = 1
                joints[visible == 0] = -1
                found.append(dict(
                    joints_vis=visible.tolist(), joints=joints.tolist(),
                    image=name, scale=.3, center=[45., 40.]))
        (root / f'annotations/{split}.json').write_text(json.dumps(found))
        heads = np.zeros((2, 2, len(found)))
        heads[1] = 20
        savemat(str(root / 'annotations/mpii_gt_val.mat'),
                dict(headboxes_src=heads))


def write_interhand(root: Path):
    """One pair of hands in each image, with a camera and joints in space."""
    write_coco(Pose(
        42, image=dict(capture=0, camera='400262', frame_idx=7),
        more=lambda a, rng: dict(
            joint_valid=[1] * 42, hand_type='interacting',
            hand_type_valid=1)))(root)
    rng = np.random.default_rng(1)
    camera = dict(
        campos=[0., 0., -900.], camrot=np.eye(3).tolist(),
        focal=[400., 400.], princpt=[WIDTH / 2, HEIGHT / 2])
    cameras = {'0': {key: {'400262': value} for key, value in camera.items()}}
    joints = {'0': {'7': dict(world_coord=rng.normal(
        0, 40, (42, 3)).round(2).tolist())}}
    for split in SPLITS:
        for name, content in (('camera', cameras), ('joint_3d', joints)):
            (root / f'annotations/{split}_{name}.json').write_text(
                json.dumps(content))


def pose_sample(kind: str, evaluator: Any, metric: str, write: Write,
                **more: Any) -> Sample:
    def dataset(split: str) -> dict[str, Any]:
        own = more.get(split, {})
        return dict(
            type=kind, data_root='{}', ann_file=f'annotations/{split}.json',
            data_prefix=dict(img='images/'), test_mode=split == 'val',
            **{k: v for k, v in more.items() if k not in SPLITS}, **own)

    return Sample('pose', write, dataset, evaluator, metric)


def coco_metric(**more: Any) -> dict[str, Any]:
    return dict(type='CocoMetric', ann_file='{}/annotations/val.json', **more)


PCK = [dict(type='PCKAccuracy', thr=.2), dict(type='AUC'), dict(type='EPE')]
NME = dict(type='NME', norm_mode='keypoint_distance')
AP = 'coco/AP'
SAMPLES: dict[str, Sample] = {
    'coco-wholebody': pose_sample(
        'CocoWholeBodyDataset',
        dict(type='CocoWholeBodyMetric', ann_file='{}/annotations/val.json'),
        'coco-wholebody/AP', write_coco(Pose(17, more=whole_body))),
    'mpii': pose_sample(
        'MpiiDataset', dict(type='MpiiPCKAccuracy'), 'PCK', write_mpii,
        val=dict(headbox_file='{}/annotations/mpii_gt_val.mat')),
    'crowdpose': pose_sample(
        'CrowdPoseDataset',
        coco_metric(use_area=False, iou_type='keypoints_crowd',
                    prefix='crowdpose'), 'crowdpose/AP',
        write_coco(Pose(14, image=dict(crowdIndex=.4), drop=('area', ),
                        more=lambda a, rng: dict(num_keypoints=sum(
                            v == 2 for v in a['keypoints'][2::3]))))),
    'aic': pose_sample(
        'AicDataset', coco_metric(use_area=False), AP,
        write_coco(Pose(14, drop=('area', 'segmentation')))),
    'jhmdb': pose_sample(
        'JhmdbDataset',
        dict(type='JhmdbPCKAccuracy', thr=.2, norm_item=['bbox', 'torso']),
        'PCK', write_coco(Pose(
            15, name=lambda split, i: f'Frames/catch/{split}/{i:05d}.png',
            drop=('segmentation', )))),
    'posetrack18': pose_sample(
        'PoseTrack18Dataset', coco_metric(), AP, write_coco(Pose(
            17, name=lambda split, i: f'{split}/0128_mpii/{i:06d}.jpg',
            image=dict(frame_id=10128340000, is_labeled=True, nframes=9,
                       vid_id='012834'), more=track))),
    'ochuman': pose_sample(
        'OCHumanDataset', coco_metric(), AP, write_coco(Pose(17))),
    'human-art': pose_sample(
        'HumanArtDataset', coco_metric(), AP, write_coco(Pose(
            17, name=lambda split, i: f'2D_virtual_human/{split}/{i:06d}.jpg',
            image=dict(category='dance', style='2D'), more=human_art))),
    'human-art-21': pose_sample(
        'HumanArt21Dataset', PCK, 'AUC', write_coco(Pose(17, more=human_art))),
    'ap-10k': pose_sample(
        'AP10KDataset', coco_metric(), AP,
        write_coco(Pose(17, categories=(1, 5, 54)))),
    'animal-pose': pose_sample(
        'AnimalPoseDataset', coco_metric(), AP,
        write_coco(Pose(20, categories=(1, 2, 5), drop=('segmentation', )))),
    'horse-10': pose_sample(
        'Horse10Dataset', PCK, 'AUC', write_coco(Pose(
            22, name=lambda split, i: f'labeled-data/BrownHorse/{i}.png',
            drop=('segmentation', )))),
    'onehand10k': pose_sample(
        'OneHand10KDataset', PCK, 'AUC', write_coco(Pose(21))),
    'freihand': pose_sample(
        'FreiHandDataset', PCK, 'AUC', write_coco(Pose(
            21, name=lambda split, i: f'training/rgb/{i:08d}.jpg',
            size=(224, 224)))),
    '300w': pose_sample(
        'Face300WDataset', NME, 'NME', write_coco(Pose(
            68, more=centred, drop=('area', 'segmentation')))),
    'wflw': pose_sample(
        'WFLWDataset', NME, 'NME', write_coco(Pose(
            98, more=centred, drop=('area', 'segmentation')))),
    'cofw': pose_sample(
        'COFWDataset', NME, 'NME', write_coco(Pose(
            29, drop=('area', 'segmentation')))),
    'aflw': pose_sample(
        'AFLWDataset',
        dict(type='NME', norm_mode='use_norm_item', norm_item='bbox_size'),
        'NME', write_coco(Pose(
            19, drop=('area', 'segmentation'),
            more=lambda a, rng: dict(
                centred(a, rng), box_size=max(a['bbox'][2:]))))),
    'macaque': pose_sample(
        'MacaqueDataset', coco_metric(), AP, write_coco(Pose(17))),
    'coco-wholebody-hand': pose_sample(
        'CocoWholeBodyHandDataset', PCK, 'AUC', write_coco(Pose(
            17, more=whole_body))),
    'interhand2d': pose_sample(
        'InterHand2DDoubleDataset', PCK, 'AUC', write_interhand, **{
            split: {f'{key}_file': f'annotations/{split}_{name}.json'
                    for key, name in (('camera_param', 'camera'),
                                      ('joint', 'joint_3d'))}
            for split in SPLITS}),
    **{f'deepfashion-{subset}': pose_sample(
        'DeepFashionDataset', PCK, 'AUC', write_coco(Pose(
            points, drop=('segmentation', ))), subset=subset)
       for subset, points in (('full', 8), ('upper', 6), ('lower', 4))},
}  # yapf: disable


# Label maps


def write_maps(images: str, labels: str, low: int, high: int) -> Write:
    """Return a writer of images and maps of labels below ``high``."""

    def write(root: Path):
        rng = np.random.default_rng(0)
        for split in SPLITS:
            for i in range(IMAGES):
                write_image(root / images.format(split=split, i=i), rng)
                blocks = rng.integers(low, high, (4, 4), 'u1')
                path = root / labels.format(split=split, i=i)
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), cv2.resize(
                    blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST))

    return write


def seg_sample(kind: str, classes: int, folders: Sequence[str],
               suffixes: Sequence[str], values: Sequence[int]) -> Sample:
    images, labels = folders

    def dataset(split: str) -> dict[str, Any]:
        return dict(
            type=kind, data_root='{}', data_prefix=dict(
                img_path=images.format(split=split),
                seg_map_path=labels.format(split=split)))

    return Sample(
        'seg', write_maps(f'{images}/{{i}}{suffixes[0]}',
                          f'{labels}/{{i}}{suffixes[1]}', *values), dataset,
        dict(type='IoUMetric', iou_metrics=['mIoU']), 'mIoU', classes)


SAMPLES.update({
    'loveda': seg_sample('LoveDADataset', 7, (
        'img_dir/{split}', 'ann_dir/{split}'), ('.png', '.png'), (0, 8)),
    'potsdam': seg_sample('PotsdamDataset', 6, (
        'img_dir/{split}', 'ann_dir/{split}'), ('.png', '.png'), (0, 7)),
    'mapillary-v1': seg_sample('MapillaryDataset_v1', 66, (
        '{split}/images', '{split}/v1.2/labels'), ('.jpg', '.png'), (0, 66)),
    'mapillary-v2': seg_sample('MapillaryDataset_v2', 124, (
        '{split}/images', '{split}/v2.0/labels'), ('.jpg', '.png'), (0, 124)),
    'vaihingen': seg_sample('ISPRSDataset', 6, (
        'img_dir/{split}', 'ann_dir/{split}'), ('.png', '.png'), (0, 7)),
    'isaid': seg_sample('iSAIDDataset', 16, (
        'img_dir/{split}', 'ann_dir/{split}'),
        ('.png', '_instance_color_RGB.png'), (0, 16)),
    'bdd100k': seg_sample('BDD100KDataset', 19, (
        'images/10k/{split}', 'labels/sem_seg/masks/{split}'),
        ('.jpg', '.png'), (0, 19)),
    **{name: seg_sample(f'{kind}Dataset', 2, (
        'images/{split}', 'annotations/{split}'), ('.png', suffix), (0, 2))
       for name, kind, suffix in (
           ('drive', 'DRIVE', '_manual1.png'), ('stare', 'STARE', '.ah.png'),
           ('chase-db1', 'ChaseDB1', '_1stHO.png'), ('hrf', 'HRF', '.png'))},
})  # yapf: disable


# Classes


def write_cub(root: Path):
    """Images by class, and three lists with a number in each line."""
    rng, lists = np.random.default_rng(0), ('images', 'image_class_labels',
                                            'train_test_split')
    lines: list[list[str]] = [[], [], []]
    for i in range(1, 2 * IMAGES + 1):
        label = 1 + i % 3
        name = f'{label:03d}.Bird_{label}/Bird_{i:04d}.jpg'
        write_image(root / 'images' / name, rng)
        for part, word in zip(lines, (name, label, i % 2)):
            part.append(f'{i} {word}')
    for name, part in zip(lists, lines):
        (root / f'{name}.txt').write_text('\n'.join(part) + '\n')


SAMPLES['cub'] = Sample(
    'cls', write_cub, lambda split: dict(
        type='CUB', data_root='{}',
        split='train' if split == 'train' else 'test'),
    dict(type='Accuracy', topk=(1, )), 'accuracy/top1', 200)


def fill(value: Any, folder: Path) -> Any:
    """Return a nested value with ``{}`` replaced by a folder."""
    if isinstance(value, dict):
        return {k: fill(v, folder) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(fill(v, folder) for v in value)
    return value.replace('{}', str(folder)) if isinstance(value, str) else (
        value)
