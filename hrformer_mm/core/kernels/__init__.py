# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Device-specific code of the core: one function per operation.

Functions take layers, not their weights. By default they call the layers, as
for compilers, exporters, autocast and most devices. They use a fast path if
the device has one and nothing observes, changes or replaces the layers (see
:mod:`.bypass`). Tests check that both paths agree.
"""
from .bypass import has_hooks, may_bypass
from .cpu import by_images
from .feed_forward import (
    PointwiseConv,
    conv_norm,
    conv_norm_act,
    conv_norm_relu,
    run_layers,
    sum_conv_norms,
)
from .heads import attention, from_heads, gather_bias, to_heads
from .kept import Keeper, keep
from .triton import (
    fused_blocks,
    fused_sum,
    fuses_block,
    fuses_sum,
    set_kernels,
)
from .windows import attend_map

__all__ = [
    'Keeper', 'PointwiseConv', 'attend_map', 'attention', 'by_images',
    'conv_norm', 'conv_norm_act', 'conv_norm_relu', 'from_heads',
    'fused_blocks', 'fused_sum', 'fuses_block', 'fuses_sum', 'gather_bias',
    'has_hooks', 'keep', 'may_bypass', 'run_layers', 'set_kernels',
    'sum_conv_norms', 'to_heads'
]
