# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Optimize trained networks for inference."""
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..core.attention import Attention
from ..core.kernels import set_kernels

BatchNorm = nn.modules.batchnorm._BatchNorm
PRECISIONS = (None, torch.float32, torch.bfloat16, torch.float16)


def conv_norm_pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of convolutions of a module and the norms after them.

    A norm follows a convolution if it is the next child and has the same
    number of channels.
    """
    children = list(module.named_children())
    for (conv_name, conv), (norm_name, norm) in zip(children, children[1:]):
        if (isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNorm)
                and norm.num_features == conv.out_channels
                and norm.track_running_stats):
            yield conv_name, norm_name


def fold_batch_norm(model: nn.Module) -> int:
    """Fold each batch norm into the convolution before it, in place.

    Args:
        model: Model in eval mode.

    Returns:
        The number of folded norms; they are replaced by ``nn.Identity``.
    """
    count = 0
    for module in list(model.modules()):
        for conv_name, norm_name in conv_norm_pairs(module):
            conv = getattr(module, conv_name)
            norm = getattr(module, norm_name)
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var,
                norm.eps, norm.weight, norm.bias)
            setattr(module, norm_name, nn.Identity())
            count += 1
    return count


def parts(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the networks of an OpenMMLab model: backbone, neck, heads.

    Their surroundings (normalization of images, decoding, losses) remain
    unchanged. Any other model is a single part.
    """
    names = ('backbone', 'neck', 'head', 'decode_head', 'auxiliary_head',
             'bbox_head')
    found = (getattr(model, name, None) for name in names)
    return tuple(m for m in found if isinstance(m, nn.Module)) or (model, )


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor in nested lists and tuples."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(v, function) for v in value)
    return value


def run_in(module: nn.Module, dtype: torch.dtype):
    """Make a module compute in ``dtype``; inputs and outputs stay float32."""
    forward = module.to(dtype).forward

    def cast(x: Tensor) -> Tensor:
        return x.to(dtype) if x.is_floating_point() else x

    def restore(x: Tensor) -> Tensor:
        return x.float() if x.dtype == dtype else x

    @wraps(forward)
    def wrapped(*args, **kwargs):
        args = map_tensors(args, cast)
        return map_tensors(forward(*args, **kwargs), restore)

    # On the instance, since OpenMMLab's heads call self.forward directly.
    module.forward = wrapped


@torch.no_grad()
def optimize(model: nn.Module,
             dtype: torch.dtype | None = None,
             compile: bool = False,
             kernels: str | None = None,
             **compile_options) -> nn.Module:
    """Return a copy of the model for inference, with the same outputs.

    Batch norms are folded into convolutions, attention biases are gathered
    once, 4-D weights are channels-last, and on CPUs oneDNN fuses GELUs into
    matrix products. The copy cannot be trained, and its parameters differ
    from the checkpoint's: load the checkpoint first.

    Args:
        model: HRFormer, or an OpenMMLab model with it; it is not changed.
        dtype: ``torch.bfloat16`` or ``torch.float16`` computes the networks
            (backbone, neck, head) in half precision; images and outputs stay
            float32.
        compile: Compile the networks at their first call.
        kernels: ``'triton'`` uses fused GPU kernels, ``'plain'`` does not; by
            default those of the model.
        **compile_options: Options of ``torch.compile``, such as
            ``mode='max-autotune'``.

    Raises:
        ValueError: If ``dtype`` is not supported.

    Example:
        >>> from hrformer_mm.core import HRFormer
        >>> model = HRFormer('tiny').eval()
        >>> x = torch.rand(1, 3, 64, 64)
        >>> a, b = model(x)[0], optimize(model)(x)[0]
        >>> torch.allclose(a, b, atol=1e-4)
        True
    """
    if dtype not in PRECISIONS:
        raise ValueError(f'dtype must be one of {PRECISIONS}, got {dtype!r}')
    model = deepcopy(model).eval().requires_grad_(False)
    fold_batch_norm(model)
    if kernels is not None:
        set_kernels(model, kernels)
    for module in list(model.modules()):
        if isinstance(module, Attention):
            module.freeze_bias()
    model.to(memory_format=torch.channels_last)
    for part in parts(model):
        if dtype not in (None, torch.float32):
            run_in(part, dtype)
        if compile:
            part.forward = torch.compile(part.forward, **compile_options)
    return model
