# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Draw people in COCO keypoint format, to train pose models on.

They roughly face the viewer, so left and right can be distinguished and remain
correct when the image is flipped. All lengths are in pixels; ``base`` is the
offset of the numbers of a person's parts.
"""
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from .bodies import (
    KEYPOINTS,
    SIDES,
    SKELETON,
    Body,
    of_side,
    place_body,
    sample_body,
)
from .drawing import (
    ARM,
    EARS,
    FOREARM,
    HEAD,
    PAIRED,
    SHIN,
    THIGH,
    TORSO,
    Canvas,
    draw_background,
    draw_person,
    draw_thing,
    sample_look,
)

# Parts on which each keypoint is visible unless they are occluded.
SEEN_ON = [(HEAD, )] + [
    tuple(of_side(p, side) if p in PAIRED else p for p in parts)
    for parts in ((HEAD, ), (EARS, ), (ARM, TORSO), (ARM, FOREARM),
                  (FOREARM, ), (TORSO, THIGH), (THIGH, SHIN), (SHIN, ))
    for side in SIDES
]
# What make_people writes.
FILES = ('annotations/person_keypoints_train2017.json',
         'annotations/person_keypoints_val2017.json', 'train2017', 'val2017')

PARTS = 16  # numbers reserved per person in the map of parts
OCCLUDER = 255
HIDDEN = 0.3  # minimum visible share of a person to label keypoints
SMALLEST = 32  # minimum visible area of a person to annotate


def sample_place(rng: Generator, body: Body, scale: float, roll: float,
                 slot: ndarray, height: int) -> Body:
    """Place a body between two columns; one in ten crosses the border."""
    placed = place_body(body, scale, roll, np.zeros(2))
    low, high = placed.joints.min(0), placed.joints.max(0)
    margin = .06 * scale
    y = rng.uniform(margin - low[1],
                    max(height - margin - high[1], margin - low[1] + 1))
    x = rng.uniform(*slot) - (low[0] + high[0]) / 2
    if rng.random() < .1:
        y += rng.choice((-.25, .4)) * scale
    return place_body(body, scale, roll, np.array([x, y]))


def pixels_of(canvas: Canvas, base: int) -> ndarray:
    """Return the mask [H, W] of a person's visible pixels."""
    return (canvas.parts >= base) & (canvas.parts < base + PARTS)


def label_points(canvas: Canvas, body: Body, base: int) -> ndarray:
    """Return keypoints [17, 3]: x, y and visibility as in COCO.

    It is 2 if visible and 1 if occluded; keypoints outside the image are zero.
    """
    height, width = canvas.parts.shape
    points = np.zeros((17, 3))
    for index, (x, y) in enumerate(body.joints):
        column, row = int(round(x)), int(round(y))
        if 0 <= column < width and 0 <= row < height:
            part = int(canvas.parts[row, column]) - base
            points[index] = x, y, 2 if part in SEEN_ON[index] else 1
    return points


def annotate(canvas: Canvas, body: Body, base: int,
             drawn: int) -> dict[str, Any] | None:
    """Return the COCO annotation of a person, None for an invisible one.

    Args:
        canvas: Canvas with all people and occluders.
        body: Body of the person.
        base: Offset of the numbers of the person's parts.
        drawn: Number of pixels of the person before occlusion.
    """
    mask = pixels_of(canvas, base).astype(np.uint8)
    area = int(mask.sum())
    if area < SMALLEST:
        return None
    points = np.zeros((17, 3))
    if area > HIDDEN * drawn:
        points = label_points(canvas, body, base)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_SIMPLE)
    return dict(
        keypoints=[round(float(v), 2) for v in points.flat],
        num_keypoints=int((points[:, 2] > 0).sum()),
        area=area,
        bbox=list(cv2.boundingRect(mask)),
        segmentation=[o.ravel().tolist() for o in outlines if len(o) > 2],
        iscrowd=0,
        category_id=1)


def draw_group(rng: Generator) -> tuple[ndarray, list[dict[str, Any]]]:
    """Draw one to three people and return the image and their annotations.

    Returns:
        BGR image [H, W, 3] of uint8, and a COCO annotation for each person,
        without ``id`` and ``image_id``.
    """
    height, width = (240, 320) if rng.random() < .7 else (320, 240)
    canvas = Canvas(draw_background(rng, height, width))
    people: list[tuple[Body, int, int]] = []
    count = rng.choice(3, p=(.45, .4, .15)) + 1
    for i in rng.permutation(count):
        stature = rng.uniform(.5, .95) * min(height, 280) * .9**(count - 1)
        slot = np.array([i + .25, i + .75]) * width / count
        body = sample_place(rng, sample_body(rng), stature,
                            rng.normal(0, .12), slot, height)
        base = 1 + PARTS * len(people)
        draw_person(canvas, body, sample_look(rng), base, stature, rng)
        people.append((body, base, pixels_of(canvas, base).sum()))
    for body, *_ in people:
        if rng.random() < .2:
            spot = body.joints[rng.integers(5, 17)] + rng.normal(0, 8, 2)
            draw_thing(canvas, spot, rng.uniform(8, 20), rng, OCCLUDER)
    noise = rng.integers(-9, 10, canvas.image.shape, np.int8)
    image = np.clip(canvas.image + noise.astype(np.int16), 0, 255)
    found = [annotate(canvas, *person) for person in people]
    return image.astype(np.uint8), [a for a in found if a is not None]


def write_split(root: Path, split: str, count: int, seed: int):
    """Write ``<split>/*.jpg`` and ``annotations/person_keypoints_<split>``.

    Each image has its own random generator, so a larger dataset starts with
    the images of a smaller one.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    (root / split).mkdir(parents=True)
    for number in range(1, count + 1):
        # Splits must not share images, regardless of their sizes and order.
        stream = [seed, number, *split.encode()]
        image, people = draw_group(np.random.default_rng(stream))
        name = f'{number:012d}.jpg'
        cv2.imwrite(
            str(root / split / name), image, [cv2.IMWRITE_JPEG_QUALITY, 85])
        height, width = image.shape[:2]
        images.append(
            dict(id=number, file_name=name, width=width, height=height))
        for person in people:
            annotations.append(
                dict(person, id=len(annotations) + 1, image_id=number))
    category = dict(id=1, name='person', supercategory='person',
                    keypoints=KEYPOINTS, skeleton=SKELETON)  # yapf: disable
    content = dict(
        info=dict(description='Drawn people', seed=seed),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[category])
    path = root / 'annotations' / f'person_keypoints_{split}.json'
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding='utf-8')


def make_people(root: Path, train: int, val: int, seed: int = 0):
    """Write a dataset in the layout of COCO 2017 keypoints.

    Args:
        root: Folder without such a dataset.
        train: Number of images in ``train2017``.
        val: Number of images in ``val2017``, all different from the former.
        seed: Seed of the images.
    """
    for split, count in (('train2017', train), ('val2017', val)):
        write_split(Path(root), split, count, seed)
