# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Compile the fused kernels for a GPU, without one.

Triton's interpreter accepts what its compiler does not. Here operators run on
CPU tensors, and each launch compiles its kernel for an H100, down to machine
code, in place of starting it. Run as a program with a type, such as
``bfloat16``; TRITON_INTERPRET must not be set. Prints each kernel with its
bytes of shared memory and of code.
"""
import sys
from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from hrformer_mm.core.kernels.triton import ops

SHARED = 227 * 1024  # bytes of shared memory of a program on an H100


def pretend_gpu():
    target = GPUTarget('cuda', 90, 32)
    driver.set_active(
        SimpleNamespace(
            get_current_device=lambda: 0,
            get_current_stream=lambda device: 0,
            get_current_target=lambda: target))
    run = JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        shared = kernel.metadata.shared
        print(self.__name__, shared, len(kernel.asm['cubin']))
        assert shared <= SHARED, (self.__name__, shared)
        return kernel

    JITFunction.run = compile_only


def attend(dtype: torch.dtype, window: int, d: int):
    """Compile the forward and backward pass of attention."""
    heads, size = 2, (window + 1, 2 * window)
    qkv = torch.randn(2, *size, 3 * heads * d, dtype=dtype)
    pad = torch.randn(3 * heads * d)
    table = torch.randn((2 * window - 1)**2, heads)
    for shifts, mask in (((0, 0), False), ((1, 1), True)):
        for each in (table, None):
            y, _ = ops.window_attention(
                qkv.requires_grad_(), pad, each, heads, window, shifts, mask,
                d**-.5)
            y.sum().backward()


def normalize(dtype: torch.dtype, C: int):
    """Compile norms, activations and sums, forward and backward."""
    x, y = (torch.randn(2, 5, 7, C, dtype=dtype, requires_grad=True)
            for _ in range(2))
    params = torch.rand(4, C)
    mean, var, weight, bias = params.unbind()
    factor, values = torch.ones(2), [*params.unbind()]
    ops.batch_statistics(x.detach(), mean, var, torch.tensor(0), .1)
    for norm in ([None] * 4, values):
        for residual, each in ((y, factor), (None, None)):
            z = ops.norm_gelu(x, *norm, 1e-5, residual, each,
                              norm[0] is not None)
            z.sum().backward()
    for each in (factor, None):
        total, normed = ops.add_norm(x, y, each, weight, bias, 1e-6, dtype)
        (total.sum() + normed.sum()).backward()
    with torch.no_grad():
        for norm in ([], values):
            ops.gelu_add_norm(x, y, norm, 1e-5, weight, bias, 1e-6, dtype)
            ops.depthwise(x, torch.rand(C, 1, 3, 3), weight, norm, 1e-5, norm,
                          1e-5)
        for bilinear in (False, True):
            maps = [torch.rand(2, 8 // f, 8 // f, C, dtype=dtype)
                    for f in (1, 2, 4, 8)]
            ops.fuse(maps, 8, 8, bilinear)


if __name__ == '__main__':
    pretend_gpu()
    dtype = getattr(torch, sys.argv[1])
    for window, d in ((7, 39), (15, 39)):
        attend(dtype, window, d)
    normalize(dtype, 78)
