# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predict with a file of tools/export.py --post; needs no PyTorch.

    python tools/onnx_predict.py MODEL.onnx IMAGE OUT.png [X Y WIDTH HEIGHT]

The box is that of a person, by default the image. The task, and how images are
prepared, are read from the file. Needs onnxruntime and OpenCV.
"""
import json
import os
import sys

import cv2
import numpy as np
import onnxruntime


def crop_person(image, meta, box):
    """The crop, and the corner and extent that it has in the image."""
    goal = np.array(meta['shape'][::-1])
    box = np.array(box or (0, 0, *image.shape[1::-1]), float)
    extent = box[2:] * meta['padding']
    extent = np.maximum(extent, extent[::-1] * goal / goal[::-1])
    corner = box[:2] + (box[2:] - extent) / 2
    zoom = (goal - meta['udp']) / extent
    matrix = np.column_stack([np.diag(zoom), -corner * zoom])
    return cv2.warpAffine(image, matrix, goal.tolist()), corner, extent


def crop_middle(image, meta):
    """What is seen of an image whose short edge becomes ``resize_edge``."""
    size, goal = np.array(image.shape[:2]), np.array(meta['shape'])
    extent = size
    if meta['resize_edge']:
        extent = (goal * size.min() / meta['resize_edge']).round().astype(int)
    y, x = (size - extent) // 2
    part = image[max(y, 0):y + extent[0], max(x, 0):x + extent[1]]
    return cv2.resize(part, goal[::-1].tolist(), interpolation=cv2.INTER_AREA)


def main(model, path, out, *box):
    session = onnxruntime.InferenceSession(
        model, providers=onnxruntime.get_available_providers())
    meta = json.loads(
        session.get_modelmeta().custom_metadata_map['hrformer_mm'])
    if not meta['post']:
        sys.exit(f'error: {model} gives maps; export it with --post')
    image = crop = cv2.imread(path)
    if image is None or os.path.exists(out):
        sys.exit(f'error: {path} is no image, or {out} is already there')
    if meta['task'] == 'pose':
        crop, corner, extent = crop_person(image, meta, box)
    elif meta['task'] == 'cls':
        crop = crop_middle(image, meta)
    elif isinstance(session.get_inputs()[0].shape[2], int):
        crop = cv2.resize(image, meta['shape'][::-1])
    x = crop[..., ::-1] if meta['rgb'] else crop
    x = ((x - meta['mean']) / meta['std']).astype('f4').transpose(2, 0, 1)
    found, *scores = (y[0] for y in session.run(None, {'image': x[None]}))
    if meta['task'] == 'pose':
        found = found / meta['shape'][::-1] * extent + corner
        for name, point, score in zip(meta['names'], found, *scores):
            print(name, *point.round(1), score.round(3))
            cv2.circle(image, point.round().astype(int), 3, (0, 255, 0), -1)
    elif meta['task'] == 'seg':
        colors = np.array(meta['palette'], 'u1')[found][..., ::-1]
        colors = cv2.resize(colors, image.shape[1::-1], interpolation=0)
        image = cv2.addWeighted(image, .5, colors, .5, 0)
    else:
        for i in np.argsort(-found)[:5]:
            print(meta['names'][i], found[i].round(3))
    cv2.imwrite(out, image)


if __name__ == '__main__':
    if len(sys.argv) not in (4, 8):
        sys.exit(__doc__)
    main(*sys.argv[1:])
