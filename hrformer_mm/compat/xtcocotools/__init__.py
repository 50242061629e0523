# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Interface of xtcocotools on top of pycocotools, with equal results.

MMPose reads and evaluates COCO-style annotations through xtcocotools, which
must be compiled for most versions of Python and NumPy. pycocotools has wheels
for all of them. :mod:`hrformer_mm.compat` provides this package under the name
``xtcocotools`` if the real one cannot be imported.
"""
