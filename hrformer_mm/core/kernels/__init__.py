# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""All device-specific code of the core: one function per operation.

Each function computes what the first line of its docstring says, and takes
the layers, not their weights. By default it calls them, which is what
compilers, exporters, autocast and most devices get. It uses a faster way where
the device has one and nothing observes, changes or replaces the layers (see
:mod:`.bypass`). Tests hold that both ways agree.
"""
from .bypass import has_hooks, may_bypass
from .cpu import attend_by_pixels, by_images, prefers_pixels
from .feed_forward import PointwiseConv, conv_norm_act
from .heads import attention, from_heads, to_heads

__all__ = [
    'PointwiseConv', 'attend_by_pixels', 'attention', 'by_images',
    'conv_norm_act', 'from_heads', 'has_hooks', 'may_bypass',
    'prefers_pixels', 'to_heads'
]
