# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Register HRFormer in timm, see :mod:`hrformer_mm.integrations.timm`."""
from .integrations.timm import (
                                HRFormerClassifier,
                                HRFormerFeatures,
                                hrformer_base,
                                hrformer_small,
                                hrformer_tiny,
)

__all__ = [
    'HRFormerClassifier', 'HRFormerFeatures', 'hrformer_base',
    'hrformer_small', 'hrformer_tiny'
]
