# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Make a trained network faster where nothing is learned any more."""
from copy import deepcopy
from functools import wraps
from typing import Any, Callable, Iterator, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..core.attention import Attention
from ..core.blocks import FFN, Block, channels_first
from ..core.versions import is_compiling

BatchNorm = nn.modules.batchnorm._BatchNorm
PRECISIONS = (None, torch.float32, torch.bfloat16, torch.float16)


def conv_norm_pairs(module: nn.Module) -> Iterator[Tuple[str, str]]:
    """Names of the convolutions of a module and the norms that follow them.

    A norm follows a convolution if it is the next child and as wide.
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
        model: In eval mode.

    Returns:
        The number of norms that were folded; they become ``nn.Identity``.
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


def fuses_gelu(x: Tensor) -> bool:
    """Whether oneDNN can put a GELU behind a product of this tensor."""
    if is_compiling() or torch.jit.is_tracing():
        return False
    return (
        x.device.type == 'cpu' and x.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available())


class FoldedFFN(nn.Module):
    """A feed-forward without norms, on CPUs with GELUs inside the products.

    It has no gradient there.

    Args:
        ffn: With folded batch norms; its convolutions are taken over.
    """

    def __init__(self, ffn: FFN):
        super().__init__()
        self.fc1, self.dw3x3, self.fc2 = ffn.fc1, ffn.dw3x3, ffn.fc2

    def forward(self, x: Tensor) -> Tensor:
        if not fuses_gelu(x):
            x = F.gelu(self.fc1(x))
            if self.dw3x3 is not None:
                x = F.gelu(channels_first(self.dw3x3, x))
            return F.gelu(self.fc2(x))
        # Exact, without arguments.
        gelu: Tuple[Any, ...] = ('gelu', [], 'none')
        linear = torch.ops.mkldnn._linear_pointwise
        x = linear(x, self.fc1.weight.flatten(1), self.fc1.bias, *gelu)
        if self.dw3x3 is not None:
            # oneDNN's GELU behind a depth-wise convolution takes longer.
            x = torch.ops.aten.gelu_(channels_first(self.dw3x3, x))
        return linear(x, self.fc2.weight.flatten(1), self.fc2.bias, *gelu)


def parts(model: nn.Module) -> Tuple[nn.Module, ...]:
    """The networks of an OpenMMLab model: backbone, neck, heads.

    What is around them (normalising images, decoding, losses) stays as it is.
    Any other model is one part.
    """
    names = ('backbone', 'neck', 'head', 'decode_head', 'auxiliary_head')
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
    """Make a module compute in ``dtype``; float32 still goes in and out."""
    forward = module.to(dtype).forward

    def cast(x: Tensor) -> Tensor:
        return x.to(dtype) if x.is_floating_point() else x

    def restore(x: Tensor) -> Tensor:
        return x.float() if x.dtype == dtype else x

    @wraps(forward)
    def wrapped(*args, **kwargs):
        args = map_tensors(args, cast)
        return map_tensors(forward(*args, **kwargs), restore)

    # On the instance: heads of OpenMMLab call self.forward, not themselves.
    module.forward = wrapped


@torch.no_grad()
def optimize(model: nn.Module,
             dtype: Optional[torch.dtype] = None,
             compile: bool = False,
             **compile_options) -> nn.Module:
    """A copy of the model for inference, with the same outputs.

    Batch norms are folded into convolutions, attention biases are gathered
    once and for all, 4-D weights are channels-last, and on CPUs oneDNN
    applies GELUs where it multiplies. The copy cannot be trained, and has
    other parameters than the checkpoint: load first.

    Args:
        model: HRFormer, or an OpenMMLab model with it; it is not changed.
        dtype: ``torch.bfloat16`` or ``torch.float16`` computes the networks
            (backbone, neck, head) in half precision; images and outputs stay
            float32.
        compile: Compile the networks when they are first called.
        **compile_options: Of ``torch.compile``, as ``mode='max-autotune'``.

    Raises:
        ValueError: If ``dtype`` is not a precision that is named here.

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
    for module in list(model.modules()):
        if isinstance(module, Attention):
            module.freeze_bias()
        if isinstance(module, Block) and isinstance(module.ffn, FFN):
            module.add_module('ffn', FoldedFFN(module.ffn))
    model.to(memory_format=torch.channels_last)
    for part in parts(model):
        if dtype not in (None, torch.float32):
            run_in(part, dtype)
        if compile:
            part.forward = torch.compile(part.forward, **compile_options)
    return model
