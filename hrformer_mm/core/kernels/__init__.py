# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Device-specific code of the core: one function per operation.

Functions take layers, not their weights. By default they call the layers, as
for compilers, exporters, autocast and most devices. They use a fast path if
the device has one and nothing observes, changes or replaces the layers (see
:mod:`.bypass`). Tests check that both paths agree.
"""
from .bypass import has_hooks, may_bypass
from .cpu import attend_by_pixels, by_images, prefers_pixels
from .feed_forward import (
                    PointwiseConv,
                    conv_norm,
                    conv_norm_act,
                    conv_norm_relu,
                    run_layers,
                    sum_conv_norms,
)
from .heads import (
                    attend_by_tokens,
                    attention,
                    from_heads,
                    gather_bias,
                    prefers_tokens,
                    to_heads,
)
from .kept import Keeper, keep
from .triton import (
                     fused_attention,
                     fused_blocks,
                     fused_sum,
                     fuses_attention,
                     fuses_block,
                     fuses_sum,
                     set_kernels,
)

__all__ = [
    'Keeper', 'PointwiseConv', 'attend_by_pixels', 'attend_by_tokens',
    'attention', 'by_images', 'conv_norm', 'conv_norm_act', 'conv_norm_relu',
    'from_heads', 'fused_attention', 'fused_blocks', 'fused_sum',
    'fuses_attention',
    'fuses_block', 'fuses_sum', 'gather_bias', 'has_hooks', 'keep',
    'may_bypass', 'prefers_pixels', 'prefers_tokens', 'run_layers',
    'set_kernels', 'sum_conv_norms', 'to_heads'
]
