# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Fused GPU kernels written in Triton, off by default.

``HRFORMER_MM_KERNELS=triton`` turns them on, for a model the argument
``kernels='triton'`` of :class:`hrformer_mm.core.HRFormer`, or
:func:`set_kernels`. They need CUDA, Triton, which comes with PyTorch's CUDA
builds, and torch 2.4. The plain operations compute what they do not cover:
other dtypes than float32, bfloat16 and float16, layers with hooks or replaced
layers, exported and traced models. Without a GPU, Triton's interpreter
(``TRITON_INTERPRET=1``) runs them on CPU tensors, for tests.
"""
import os
import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ...versions import is_compiling, is_exporting
from ..bypass import may_bypass
from ..cpu import linear

CHOICES = ('plain', 'triton')
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HAS_CUSTOM_OPERATORS = hasattr(torch.library, 'custom_op')  # torch >= 2.4
AVAILABLE = HAS_CUSTOM_OPERATORS and find_spec('triton') is not None
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
if HAS_CUSTOM_OPERATORS:
    from . import layers, ops


def check_kernels(choice: str) -> str:
    """Return a choice of kernels.

    Raises:
        ValueError: If the choice is invalid.
    """
    if choice not in CHOICES:
        raise ValueError(f'kernels must be one of {list(CHOICES)}, '
                         f'got {choice!r}')
    if choice == 'triton' and not AVAILABLE:
        warnings.warn("kernels='triton' needs torch >= 2.4 and the package "
                      'triton; plain operations are used instead')
    return choice


# The choice of modules that have none.
default = check_kernels(os.environ.get('HRFORMER_MM_KERNELS') or 'plain')


def set_kernels(model: nn.Module, choice: str | None) -> None:
    """Choose the kernels of all modules of a model that support a choice.

    Args:
        model: Model.
        choice: ``'triton'``, ``'plain'``, or None for the default, which the
            environment variable ``HRFORMER_MM_KERNELS`` sets.
    """
    if choice is not None:
        check_kernels(choice)
    for module in model.modules():
        if hasattr(type(module), 'kernel_choice'):
            setattr(module, 'kernel_choice', choice)


def runs_fused(owner: nn.Module, x: Tensor, compiled: bool = False) -> bool:
    """Whether fused kernels are on and support a tensor.

    Args:
        owner: Module with a choice of kernels.
        x: Input of the operation.
        compiled: Use the kernel in compiled models, too. Inductor fuses
            element-wise operations and norms itself, but not attention.
    """
    if (getattr(owner, 'kernel_choice') or default) != 'triton':
        return False
    on = AVAILABLE and (x.device.type == 'cuda' or INTERPRETED)
    if not on or x.dtype not in DTYPES or torch.jit.is_tracing():
        return False
    return not is_compiling() or (compiled and not is_exporting())


def fuses_attention(layer: Any, x: Tensor) -> bool:
    """Whether :func:`fused_attention` computes a window attention layer.

    Args:
        layer: ``WindowAttention`` whose ``attn`` may be bypassed.
        x: Map [B, H, W, C].
    """
    attn = layer.attn
    return (
        runs_fused(layer, x, compiled=True) and layer.window_size <= 16
        and x.shape[-1] <= 128 * attn.heads and may_bypass(
            attn.qkv, nn.Linear))


def fused_attention(attn: Any, x: Tensor, shifts: Sequence[int],
                    mask_padding: bool) -> Tensor:
    """Compute window attention of a map [B, H, W, C].

    Args:
        attn: ``Attention`` with the layers and the bias table.
        x: Map.
        shifts: Rows and columns by which windows are shifted.
        mask_padding: Prevent real tokens from attending to padding.
    """
    d = x.shape[-1] // attn.heads
    qkv, pad = linear(attn.qkv, x), attn.qkv.bias
    pad = qkv.new_zeros(qkv.shape[-1]) if pad is None else pad
    y, _ = ops.window_attention(qkv.contiguous(), pad,
                                attn.relative_position_bias_table, attn.heads,
                                attn.window_size, shifts, mask_padding,
                                d**-.5)
    return linear(attn.proj, y)


def fuses_block(block: Any, x: Tensor) -> bool:
    """Whether :func:`fused_blocks` computes a transformer block.

    Args:
        block: ``Block`` that may be bypassed.
        x: Map [B, H, W, C].
    """
    return runs_fused(block, x) and not (
        block.with_cp and torch.is_grad_enabled())


def fused_blocks(blocks: Iterable[Any], x: Tensor,
                 ffn_kind: type[nn.Module]) -> Tensor:
    """Compute transformer blocks with fused norms, activations and sums.

    For inference, the last kernel of a block also computes the first norm of
    the next one.

    Args:
        blocks: Blocks, computed one after another.
        x: Map [B, H, W, C].
        ffn_kind: Class of feed-forward layers that may be bypassed.
    """
    todo, normed = list(blocks), None
    while todo:
        block = todo.pop(0)
        y = block.attn(block.norm1(x) if normed is None else normed)
        factor = block.drop_path.factor(y)
        x, y = layers.add_norm(block.norm2, x, y, factor)
        if may_bypass(block.ffn, ffn_kind):
            x, normed = layers.feed_forward(
                block.ffn, y, x, block.drop_path.factor(y),
                todo[0].norm1 if todo else None)
        else:
            x, normed = x + block.drop_path(block.ffn(y)), None
    return x


def fuses_sum(owner: nn.Module, parts: Sequence[Tensor], size: Sequence[int],
              upsample: str) -> bool:
    """Whether :func:`fused_sum` computes a sum of maps.

    Args:
        owner: Module with a choice of kernels.
        parts: Maps [B, C, h, w], before they are upsampled.
        size: Height and width of the output.
        upsample: Mode of upsampling.
    """
    return (
        runs_fused(owner, parts[0]) and 1 < len(parts) <= 4
        and upsample in ('nearest', 'bilinear')
        and not (torch.is_grad_enabled() and any(p.requires_grad
                                                 for p in parts))
        and len({p.dtype for p in parts}) == 1 and all(
            tuple(size) == (f * p.shape[2], f * p.shape[3])
            for p in parts for f in [max(size[0] // p.shape[2], 1)]))


def fused_sum(parts: Sequence[Tensor], size: Sequence[int],
              upsample: str) -> Tensor:
    """Compute the ReLU of the sum of upsampled maps.

    Args:
        parts: See :func:`fuses_sum`.
        size: See :func:`fuses_sum`.
        upsample: ``'nearest'`` or ``'bilinear'``.
    """
    maps = [p.permute(0, 2, 3, 1).contiguous() for p in parts]
    y = ops.fuse(maps, *size, upsample == 'bilinear')
    return y.permute(0, 3, 1, 2)
