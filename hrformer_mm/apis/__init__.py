# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predictions on images, videos and cameras.

Example::

    from hrformer_mm.apis import list_models, load_predictor, predict

    list_models('*coco*', pretrained=True)
    predictor = load_predictor('hrformer_s_coco_256x192', device='cpu')
    for found in predictor(['one.jpg', 'two.jpg']):
        ...
    predict('config.py', 'weights.pth', ['images/', 'clip.mp4'], 'out')
"""
from .models import find_weights, get_model, list_models
from .predictor import Predictor
from .run import Outcome, load_predictor, predict

__all__ = [
    'Outcome', 'Predictor', 'find_weights', 'get_model', 'list_models',
    'load_predictor', 'predict'
]
