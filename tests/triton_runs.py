# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Run layers with fused kernels and without, and compare.

Without a GPU, Triton's interpreter runs the kernels (see conftest.py).
"""
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hrformer_mm.core.kernels import set_kernels, triton

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def skip_if_unavailable():
    """Skip a test module without Triton or custom operators."""
    if not triton.AVAILABLE:
        pytest.skip('needs torch >= 2.4 and triton', allow_module_level=True)


def round_like_hardware(monkeypatch: pytest.MonkeyPatch):
    """Make Triton's interpreter compute with bfloat16 as GPUs do.

    It truncates instead of rounding, and multiplies the bits as integers.
    """
    if DEVICE != 'cpu':
        return
    from triton.runtime import interpreter
    convert = interpreter._convert_float
    dot = interpreter.InterpreterBuilder.create_dot

    def rounded(data, source, target, mode):
        if (source.name, target.name) != ('fp32', 'bf16'):
            return convert(data, source, target, mode)
        data = torch.from_numpy(data.copy()).bfloat16().view(torch.int16)
        return data.numpy().view('uint16')

    def widen(x):
        if x.dtype.scalar.name != 'bf16':
            return x
        data = convert(x.data, x.dtype.scalar, interpreter.tl.float32, None)
        return interpreter.TensorHandle(
            data.view('float32'), interpreter.tl.float32)

    monkeypatch.setattr(interpreter, '_convert_float', rounded)
    monkeypatch.setattr(
        interpreter.InterpreterBuilder, 'create_dot',
        lambda self, a, b, *args: dot(self, widen(a), widen(b), *args))


def make_biases_matter(module: nn.Module):
    """Draw all parameters but weights of products, and running values."""
    for name, p in module.named_parameters():
        if p.ndim < 2 or 'table' in name:
            is_scale = 'norm' in name and 'weight' in name
            nn.init.normal_(p, mean=float(is_scale), std=.5)
    for name, buffer in module.named_buffers():
        if 'running' in name:
            buffer.uniform_(.5, 1.5)


def run(module: nn.Module, x: Tensor, choice: str) -> dict[str, Tensor]:
    """Compute output, gradients, and running statistics after it."""
    set_kernels(module, choice)
    before = {k: v.clone() for k, v in module.named_buffers()}
    x = x.detach().requires_grad_()
    y = module(x)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    names, params = zip(*module.named_parameters())
    grads = torch.autograd.grad((y * weights.to(y)).sum(), (x, *params))
    found = dict(zip(('output', 'x', *names), (y.detach(), *grads)))
    for name, buffer in module.named_buffers():
        if 'running' in name or 'batches' in name:
            found[name] = buffer.clone()
        buffer.copy_(before[name])
    return found


def relative_error(a: Tensor, b: Tensor) -> float:
    return float(((a - b).abs().max() / b.abs().max()).detach())


def assert_same(module: nn.Module, x: Tensor, seed: int = 0):
    """Assert that fused and plain outputs and gradients are equal.

    Where float32 itself is less exact than the limit, as for small batches
    through several batch norms, the fused path may be as far from float64 as
    the plain one.
    """
    runs = []
    for choice in ('triton', 'plain', 'exact'):
        torch.manual_seed(seed)  # for drop path
        if choice == 'exact':
            runs.append(run(module.double(), x.double(), 'plain'))
        else:
            runs.append(run(module, x, choice))
    module.float()
    fused, plain, exact = runs
    # Biases before a batch norm have a gradient of zero.
    largest = max(float(value.abs().max()) for value in exact.values())
    for name, expected in exact.items():
        scale = float(expected.abs().max())
        scale = largest if scale < 1e-5 * largest else scale
        gap = float((fused[name] - plain[name]).abs().max())
        limit = (1e-6 if name == 'output' else 1e-5) * scale
        errors = [
            float((found[name] - expected).abs().max())
            for found in (fused, plain)
        ]
        assert gap <= limit or errors[0] <= 2 * errors[1], (
            f'{name}: {gap:.2g} of {scale:.2g}, errors {errors}')


def half_precision_errors(module: nn.Module, x: Tensor,
                          dtype: torch.dtype) -> dict[str, Tensor]:
    """Compute squared relative errors of fused and plain under autocast."""
    exact = run(module.double(), x.double(), 'plain')
    module.float()
    with torch.autocast(DEVICE, dtype):
        runs = [run(module, x, name) for name in ('triton', 'plain')]
    exact = {k: value for k, value in exact.items() if value.ndim}
    largest = max(float(value.norm()) for value in exact.values())
    return {
        name: torch.stack([(found[name].double() - expected).norm()**2
                           for found in runs]) / expected.norm()**2
        for name, expected in exact.items()
        if float(expected.norm()) > 1e-6 * largest  # zero but for rounding
    }


def assert_no_worse(build: Callable[[int], tuple[nn.Module, Tensor]],
                    dtype: torch.dtype, seeds: int = 4):
    """Assert that errors under autocast are as small as the plain path's.

    Errors are compared with float64, over several draws. The ratio of the two
    paths varies by chance: rounding differs, and gradients of norms and biases
    are sums that cancel. Over 6 draws of a block the ratio of one tensor of 18
    or 36 values was between 0.1 and 2.5, that of all tensors about 0.9.
    """
    sums: dict[str, Tensor] = {}
    sizes = {}
    for seed in range(seeds):
        module, x = build(seed)
        sizes = {'output': x.numel(), 'x': x.numel(),
                 **{n: p.numel() for n, p in module.named_parameters()}}
        for name, errors in half_precision_errors(module, x, dtype).items():
            sums[name] = sums.get(name, 0) + errors
    ratios = {name: float((fused / plain).sqrt())
              for name, (fused, plain) in sums.items() if plain > 0}
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    assert mean <= 1.05, (mean, ratios)
    for name, ratio in ratios.items():
        assert ratio <= (1.2 if sizes.get(name, 0) >= 256 else 2.), (
            name, ratios)
