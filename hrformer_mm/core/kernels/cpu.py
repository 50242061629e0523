# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""CPU fast paths with equal results.

Products of narrow maps use oneDNN; attention makes few copies; and without
gradients memory is reused, because on CPUs allocating a map takes as long as
computing it.
"""
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import conv_flop_count

from ..versions import (
    is_autocast_enabled_on_cpu,
    is_compiling,
    register_flop_formula,
    torch_is_at_least,
)
from .bypass import has_global_hooks, has_hooks, may_bypass
from .kept import in_transform, layer_weights

Maps = TypeVar('Maps', Tensor, tuple[Tensor, ...])
EXACT = (torch.float32, torch.float64)


def runs_on_cpu(x: Tensor) -> bool:
    """Whether operations on ``x`` run eagerly on a CPU.

    Compilers and exporters optimize the plain operations themselves, and
    autocast supports only those.
    """
    return not (x.device.type != 'cpu' or is_autocast_enabled_on_cpu()
                or is_compiling() or torch.jit.is_tracing())


# PyTorch's counter would ignore it.
register_flop_formula(
    torch.ops.aten.mkldnn_convolution,
    lambda x, weight, *_, out_shape=None, **__: conv_flop_count(
        x, weight, out_shape))

# Number of multiply-adds below which the overhead of oneDNN exceeds the gain.
FEW_PRODUCTS = 2**22


def call(function: type[torch.autograd.Function], *args: Any) -> Any:
    """Call an autograd function, without its overhead if nothing is recorded.

    Python inspects the signature of ``forward`` in each ``apply``.
    """
    recorded = torch.is_grad_enabled() or in_transform()
    return function.apply(*args) if recorded else function.forward(*args)


class PixelProduct(torch.autograd.Function):
    """``F.linear`` of pixels [M, C] with a weight [C_out, C], for CPUs.

    oneDNN computes it as a 1x1 convolution, for these narrow shapes 1.2 to 1.7
    times as fast as PyTorch's matrix product. The same holds for the gradient
    of the pixels; that of the weight is faster as a product. oneDNN is called
    explicitly because ``F.conv2d`` does not use it with a single thread.
    """

    @staticmethod
    def forward(pixels: Tensor, weight: Tensor,
                bias: Tensor | None) -> Tensor:
        C_out, C = weight.shape
        # An image of one column, [1, C, M, 1], channels-last.
        image = pixels.reshape(1, -1, 1, C).permute(0, 3, 1, 2)
        y = torch.mkldnn_convolution(image, weight[:, :, None, None], bias,
                                     (0, 0), (1, 1), (1, 1), 1)
        return y.permute(0, 2, 3, 1).reshape(-1, C_out)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pixels, weight, bias = inputs
        ctx.save_for_backward(pixels, weight)
        ctx.has_bias = bias is not None

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        d_pixels = PixelProduct.forward(grad, weight.t(), None)
        d_weight = grad.t() @ pixels if needs[1] else None
        d_bias = grad.sum(0) if ctx.has_bias and needs[2] else None
        return d_pixels, d_weight, d_bias


def mix_channels(x: Tensor, weight: Tensor,
                 bias: Tensor | None) -> Tensor:
    """Compute ``F.linear``, by :class:`PixelProduct` if that is faster."""
    # The size is checked last, as this would fix a dynamic batch size.
    if not (runs_on_cpu(x) and x.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
            and x.numel() * len(weight) >= FEW_PRODUCTS):
        return F.linear(x, weight, bias)
    y = call(PixelProduct, x.reshape(-1, x.shape[-1]), weight, bias)
    return y.view(*x.shape[:-1], -1)


def linear(layer: Any, x: Tensor) -> Tensor:
    """Compute ``layer(x)``, by :func:`mix_channels` for an ``nn.Linear``."""
    if not may_bypass(layer, nn.Linear):
        return layer(x)
    if runs_on_cpu(x):
        return mix_channels(x, layer.weight, layer.bias)
    weight, bias = layer_weights(layer)
    return layer(x) if weight is layer.weight else mix_channels(
        x, weight, bias)


def take(x: Tensor, index: Tensor, parts: int) -> Tensor:
    """Gather rows of x [m, parts*d] at ``index`` [...], [parts, ..., d]."""
    part = torch.arange(parts).view(parts, *[1] * index.ndim)
    at = index * parts + part
    rows = x.reshape(len(x) * parts, -1).index_select(0, at.flatten())
    return rows.view(*at.shape, -1)


class RowAttention(torch.autograd.Function):
    """Attention in windows, from rows of pixels to rows of pixels.

    One copy splits windows and heads and pads them, so the products before and
    after it need no padding. The backward pass is explicit because PyTorch has
    no fused CPU kernel with a gradient of the bias, and would copy the scores
    several times. It has no second derivative.
    """

    @staticmethod
    def forward(qkv: Tensor, bias: Tensor | None, pixel: Tensor,
                token: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Compute attention.

        Args:
            qkv: Queries, keys and values of M pixels, [M, 3*h*d]; if any
                token is padding, followed by those of padding, [M+1, 3*h*d].
            bias: Bias of the scores, [h, 1, t, t].
            pixel: Index of the pixel of each token, [n, t]; M for padding.
            token: Index of the token of each pixel, [M].
            heads: Number of heads h.

        Returns:
            Rows [M, h*d]; for the backward pass queries, keys and values
            [3, h*n, t, d] and the attention [h*n, t, t].
        """
        n, t = pixel.shape
        windows = take(qkv, pixel, 3 * heads).view(3, heads * n, t, -1)
        q, k, v = windows
        if qkv.dtype not in EXACT:  # scores need float32
            q, k = q.float(), k.float()
        scores = torch.bmm(q, k.transpose(1, 2)).view(heads, n, t, t)
        scores *= q.shape[-1]**-.5
        if bias is not None:
            scores += bias
        weights = torch.softmax(scores, -1, out=scores).view(-1, t, t)
        weights = weights.to(v.dtype)
        y = torch.bmm(weights, v).view(heads * n * t, -1)
        at = token[:, None] + torch.arange(heads) * (n * t)  # [M, h]
        y = y.index_select(0, at.flatten()).view(len(token), -1)
        return y, windows, weights

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, _, pixel, token, ctx.heads = inputs
        ctx.save_for_backward(pixel, token, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_) -> tuple[Tensor | None, ...]:
        pixel, token, windows, weights = ctx.saved_tensors
        heads, (n, t), M = ctx.heads, pixel.shape, len(token)
        q, k, v = windows
        is_pad = pixel == M if pixel.numel() > M else None
        d_y = take(grad, pixel.clamp(max=M - 1), heads)  # [h, n, t, d]
        if is_pad is not None:
            d_y[:, is_pad] = 0
        d_y = d_y.view(heads * n, t, -1)
        d_windows = torch.empty_like(windows)
        torch.bmm(weights.transpose(1, 2), d_y, out=d_windows[2])
        d_scores = torch._softmax_backward_data(
            torch.bmm(d_y, v.transpose(1, 2)), weights, -1, weights.dtype)
        d_bias = None
        if ctx.needs_input_grad[1]:
            d_bias = d_scores.view(heads, n, t, t).sum(1, keepdim=True)
        d_scores *= q.shape[-1]**-.5
        torch.bmm(d_scores, k, out=d_windows[0])
        torch.bmm(d_scores.transpose(1, 2), q, out=d_windows[1])
        rows = d_windows.view(3 * heads * n * t, -1)
        at = token[:, None] + torch.arange(3 * heads) * (n * t)  # [M, 3*h]
        d_qkv = rows.new_empty(M + (is_pad is not None),
                               3 * heads * rows.shape[1])
        torch.index_select(
            rows, 0, at.flatten(), out=d_qkv[:M].view(at.numel(), -1))
        if is_pad is not None:
            d_pad = d_windows.view(3 * heads, n, t, -1)[:, is_pad]
            d_qkv[M] = d_pad.sum(1).flatten()
        return d_qkv, d_bias, None, None, None


# torch 2.1 has no fused kernel with a bias, and adds scores in half precision.
FUSED_ADDS_IN_FLOAT32 = torch_is_at_least('2.6')


def attend_rows(qkv: Tensor, bias: Tensor | None, pixel: Tensor,
                token: Tensor, heads: int) -> Tensor:
    """Apply :class:`RowAttention`, or PyTorch's kernel for large windows.

    The fused kernel stores no scores, but takes up to twice as long for
    windows as small as the paper's.

    Args:
        qkv: See :class:`RowAttention`.
        bias: Bias of the scores, [1, h, t, t].
        pixel: See :class:`RowAttention`.
        token: See :class:`RowAttention`.
        heads: Number of heads h.
    """
    n, t = pixel.shape
    exact = qkv.dtype in EXACT or FUSED_ADDS_IN_FLOAT32
    if torch.is_grad_enabled() or not exact or t * heads <= qkv.shape[1]:
        bias = None if bias is None else bias.transpose(0, 1)
        return call(RowAttention, qkv, bias, pixel, token, heads)[0]
    qkv = take(qkv, pixel, 3 * heads).view(3, heads, n, t, -1)
    q, k, v = qkv.transpose(1, 2)  # [n, h, t, d]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return y.transpose(1, 2).reshape(n * t, -1).index_select(0, token)


def window_pixels(shape: Sequence[int], partition: Callable[[Tensor], Tensor]
                  ) -> tuple[Tensor, Tensor]:
    """Map the tokens of windows to the pixels of [B, H, W] maps and back.

    Indices run over the whole batch, those of tokens over all its windows.

    Args:
        shape: Shape B, H, W of the maps.
        partition: Function that splits maps [B, H, W, C] into windows
            [n, t, C], padded with zeros.

    Returns:
        The pixel of each token, [n, t], which is B*H*W for padding; the token
        of each pixel, [B*H*W].
    """
    count = math.prod(shape)
    pixel = torch.arange(count, 0, -1).view(*shape, 1)
    pixel = count - partition(pixel)[..., 0]
    token = pixel.new_empty(count + 1)
    token[pixel.flatten()] = torch.arange(pixel.numel())
    return pixel, token[:count]


def prefers_pixels(x: Tensor) -> bool:
    """Whether :func:`attend_by_pixels` is exact and faster for a map."""
    return runs_on_cpu(x) and (
        x.dtype in EXACT or not torch.is_grad_enabled())


def attend_by_pixels(attn: Any, x: Tensor,
                     partition: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply window attention to a map [B, H, W, C], and return a map.

    Args:
        attn: ``Attention`` that may be bypassed, used without a mask.
        x: Map.
        partition: See :func:`window_pixels`.
    """
    rows = x.reshape(-1, x.shape[-1])
    pixel, token = window_pixels(x.shape[:3], partition)
    if pixel.numel() > len(token):  # a row of zeros for padding
        rows = F.pad(rows, (0, 0, 0, 1))
    qkv = linear(attn.qkv, rows)
    bias = attn.bias(qkv.dtype)
    y = attend_rows(qkv, bias, pixel, token, attn.heads)
    return linear(attn.proj, y).view(x.shape)


# Bytes of the widest maps that fit into the cache. Allocating more takes
# longer than separate calls for parts of a batch.
CACHED = 6 * 2**20


def by_images(function: Callable[[Tensor], Maps], x: Tensor,
              layers: Iterable[nn.Module], width: int) -> Maps:
    """Compute ``function(x)``, a few images at a time if that is faster.

    The batch is not split in training mode, where images depend on each other,
    nor if layers have hooks, which would see parts of it.

    Args:
        function: Function that maps a batch to a batch or a tuple of batches.
        x: Batch [B, C, H, W].
        layers: Modules that ``function`` calls.
        width: Elements of the widest maps inside, per pixel of x.
    """
    if not runs_on_cpu(x) or torch.is_grad_enabled():
        return function(x)
    widest = x[:, 0].numel() * width * x.element_size()
    parts = min(-(-widest // CACHED), len(x))
    if parts < 2 or has_global_hooks() or any(
            m.training or has_hooks(m)
            for layer in layers for m in layer.modules()):
        return function(x)
    found = [function(part) for part in x.chunk(parts)]
    if isinstance(found[0], Tensor):
        return torch.cat(found)
    return tuple(map(torch.cat, zip(*found)))
