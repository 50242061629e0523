# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predict with a file of tools/export.py --post, without PyTorch.

Prints the predictions for IMAGE and draws them into OUT. Task and
preprocessing are read from MODEL. Needs OpenCV, and onnxruntime for .onnx or
OpenVINO for .xml. Keypoints are those of one person, in --box or the whole
image.

example:
  python tools/onnx_predict.py person.onnx photo.jpg out.png --box 40 9 80 150
"""
import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import cv2
import numpy as np


def open_model(path):
    """Return a model as a function of images, and its description in JSON."""
    if not path.endswith('.xml'):
        import onnxruntime
        session = onnxruntime.InferenceSession(
            path, providers=onnxruntime.get_available_providers())
        meta = session.get_modelmeta().custom_metadata_map.get('hrformer_mm')
        return lambda x: session.run(None, {'image': x}), meta
    import openvino
    if not Path(path).with_suffix('.bin').is_file():
        raise ValueError(f'{path} has no .bin file beside it')
    model = openvino.Core().read_model(path)
    if not model.has_rt_info('hrformer_mm'):
        return None, None
    meta = model.get_rt_info('hrformer_mm').value
    # CPUs with bf16 use it unless they are asked for float32.
    exact = json.loads(meta)['precision'] == 'fp32'
    options = {'INFERENCE_PRECISION_HINT': 'f32'} if exact else {}

    def run(x):  # faster for one shape than for open dimensions
        model.reshape(x.shape)
        return openvino.compile_model(model, 'CPU', options)(x).values()

    return run, meta


def draw_boxes(image, boxes, scores, meta):
    """Print boxes as x, y, width, height, best first, and draw the sure."""
    rows, labels = (scores > meta['score_thr']).nonzero()
    boxes, scores = boxes[rows], scores[rows, labels]
    boxes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    for i in cv2.dnn.NMSBoxesBatched(boxes.tolist(), scores.tolist(), labels.
                                     tolist(), 0, meta['iou_thr']):
        name, box = meta['names'][labels[i]], boxes[i].clip(0)
        print(name, *box.round(1), scores[i].round(3))
        if scores[i] > .3:
            cv2.rectangle(image, box.round().astype(int), (0, 255, 0), 2)
            cv2.putText(image, name, box[:2].astype(int) + [2, 16], 0, .5,
                        (0, 255, 0))


def predict(run, meta, image, box):
    """Predict an image (BGR), print the results and draw them into it."""
    goal = np.array((meta['shape'] or image.shape[:2])[::-1])
    corner, size = np.reshape(box or (0, 0, *image.shape[1::-1]), (2, 2))
    fit = getattr(np, meta['fit'])  # maximum: whole box, minimum: crop
    seen = meta['padding'] * fit(size, size[::-1] * goal / goal[::-1])
    corner = corner + (size - seen) * meta.get('align', .5)
    step = seen / (goal - meta['udp'])
    blur = step.astype(int).clip(1, None if meta['task'] == 'cls' else 1)
    back = np.column_stack([np.diag(step), corner])
    x = cv2.warpAffine(cv2.blur(image, blur.tolist()), back, goal.tolist(),
                       flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
                       borderValue=meta.get('border', 0))
    x = (x[..., ::-1 if meta['rgb'] else 1] - meta['mean']) / meta['std']
    x = x.astype('f4').transpose(2, 0, 1)[None]
    found, *scores = (y[0] for y in run(x))
    if meta['task'] == 'pose':
        found, (scores, ) = found * seen / goal + corner, scores
        for name, point, score in zip(meta['names'], found, scores):
            print(name, *point.round(1), score.round(3))
        for a, b in meta['links']:
            if min(scores[a], scores[b]) > .3:
                cv2.line(image, *found[[a, b]].astype(int), (0, 255, 0), 2)
    elif meta['task'] == 'det':
        draw_boxes(image, found * np.tile(seen / goal, 2), scores[0], meta)
    elif meta['task'] == 'seg':
        colors = np.array(meta['palette'], 'u1')[found][..., ::-1]
        colors = cv2.warpAffine(colors, back, image.shape[1::-1], flags=0)
        cv2.addWeighted(image, .5, colors, .5, 0, image)
    else:
        best = (-found).argsort()[:5]
        for i in best:
            print(meta['names'][i], found[i].round(3))
        name = meta['names'][best[0]]
        cv2.putText(image, name, (4, 20), 0, .6, (0, 255, 0), 2)


def main():
    parser = ArgumentParser(
        description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    for name in ('model', 'image', 'out'):
        parser.add_argument(name, metavar=name.upper())
    parser.add_argument('--box', type=float, nargs=4, metavar=tuple('XYWH'))
    parser.add_argument('--force', action='store_true', help='overwrite OUT')
    args = parser.parse_args()
    out, image = Path(args.out), cv2.imread(args.image)
    if image is None or out.exists() and not args.force:
        raise ValueError(f'{args.image} is no image' if image is None else
                         f'{out} is already there; --force replaces it')
    run, meta = open_model(args.model)
    if not meta or not json.loads(meta)['post']:
        raise ValueError(f'{args.model} is not a file of export.py --post')
    predict(run, json.loads(meta), image, args.box)
    fresh = out.with_name(f'.{out.name}')  # never leave a partial file
    fresh.write_bytes(cv2.imencode(out.suffix, image)[1].tobytes())
    fresh.replace(out)


if __name__ == '__main__':
    try:
        cv2.utils.logging.setLogLevel(0)
        main()
    except Exception as error:  # the runtimes and OpenCV have their own kinds
        ArgumentParser().exit(2, f'error: {error}\n')
