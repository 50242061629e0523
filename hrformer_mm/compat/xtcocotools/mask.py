# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Run-length encoded masks, equal in pycocotools and xtcocotools."""
from pycocotools.mask import (
    area,
    decode,
    encode,
    frPyObjects,
    iou,
    merge,
    toBbox,
)

__all__ = ['area', 'decode', 'encode', 'frPyObjects', 'iou', 'merge', 'toBbox']
