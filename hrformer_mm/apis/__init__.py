# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Predictions on images, videos and cameras.

Example::

    from hrformer_mm.apis import load_predictor, predict

    predictor = load_predictor('config.py', 'weights.pth', device='cpu')
    for found in predictor(['one.jpg', 'two.jpg']):
        ...
    predict('config.py', 'weights.pth', ['images/', 'clip.mp4'], 'out')
"""
from .predictor import Predictor
from .run import Outcome, load_predictor, predict

__all__ = ['Outcome', 'Predictor', 'load_predictor', 'predict']
