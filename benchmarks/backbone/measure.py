# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Measure time and memory of backbones, with interleaved timing."""
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hrformer_mm.utils.costs import PeakMemory, nbytes, tensors_of

from .subjects import DTYPES, SUBJECTS, Case, FileBackbone, build

PROFILED = 3  # number of profiled steps
# Largest relative difference of outputs that count as equal.
# int8 is calibrated with noise here, so that its outputs are rough.
TOLERANCES = dict(fp32=1e-4, fp16=3e-2, bf16=2e-1, int8=1.)


def synchronize(device: torch.device):
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Measure the wall time of one call."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def best(function: Callable[[], Any], device: torch.device,
         repeats: int = 8) -> float:
    """Return the second smallest time of several calls.

    The smallest one may be an error of the clock.
    """
    function()
    return sorted(seconds(function, device) for _ in range(repeats))[1]


@dataclass
class Limits:
    """Peak performance of the machine.

    Attributes:
        flops: Operations per second of a large matrix product.
        bandwidth: Bytes per second, read and written, of a large copy.
    """
    flops: float
    bandwidth: float

    @classmethod
    def measure(cls, dtype: torch.dtype, device: torch.device) -> 'Limits':
        is_gpu = device.type == 'cuda'
        # Most CPUs have no products in half precision, and emulate them.
        n = 8192 if is_gpu else 2048 if dtype == torch.float32 else 256
        a = torch.randn(n, n, device=device).to(dtype)
        image = a.view(1, n, n, 1)
        kernel = a.view(n, n, 1, 1)
        # Also a convolution, as CPUs may have a faster library for it.
        products = (lambda: a @ a,
                    lambda: torch.nn.functional.conv2d(image, kernel))
        with torch.no_grad():
            product = min(best(f, device) for f in products)
        x = torch.empty(2**28 if is_gpu else 2**26,
                        dtype=torch.uint8, device=device)  # yapf: disable
        y = torch.empty_like(x)
        copy = best(lambda: y.copy_(x), device)
        return cls(2 * n**3 / product, 2 * x.numel() / copy)


class Traffic(TorchDispatchMode):
    """Count the bytes that operations read and write, one by one.

    Views are free. ``total`` is the memory traffic of a network without fusion
    and without caches.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not func.is_view:
            self.total += nbytes(tensors_of((args, kwargs)))
            self.total += nbytes(tensors_of(out))
        return out


class Step:
    """A forward pass, or a forward and backward pass, of one network."""

    def __init__(self, model: nn.Module, case: Case, x: Tensor):
        self.model, self.case, self.x = model, case, x
        # An optimized network computes in the precision of its weights.
        weights = {p.dtype for p in model.parameters()}
        self.amp = case.dtype != 'fp32' and weights == {torch.float32}

    def autocast(self):
        if not self.amp:
            return nullcontext()
        return torch.autocast(self.x.device.type, DTYPES[self.case.dtype])

    def forward(self) -> list[Tensor]:
        with torch.no_grad(), self.autocast():
            return [y.float() for y in self.model(self.x)]

    def __call__(self):
        if self.case.mode == 'forward':
            with torch.no_grad(), self.autocast():
                self.model(self.x)
            return
        for p in self.model.parameters():
            p.grad = None
        with self.autocast():
            loss = sum(y.float().square().mean() for y in self.model(self.x))
        loss.backward()


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Compute the largest relative difference of maps, by their norms."""
    return max(((x - y).norm() / y.norm()).item() for x, y in zip(a, b))


def check_equal(steps: dict[str, Step]) -> dict[str, float]:
    """Compare the outputs with those of the first network, in eval mode.

    Raises:
        RuntimeError: If outputs that should be equal differ.
    """
    names = [name for name in steps if SUBJECTS[name][0]]
    outputs, found = {}, {}
    for name in names:
        model = steps[name].model
        training = model.training
        model.eval()
        outputs[name] = steps[name].forward()
        model.train(training)
    for name in names[1:]:
        found[name] = difference(outputs[name], outputs[names[0]])
        kind = next((k for k in ('bf16', 'int8') if name.endswith(k)),
                    steps[name].case.dtype)
        if not found[name] <= TOLERANCES[kind]:
            raise RuntimeError(
                f'{name} differs from {names[0]} by {found[name]:.2g} in '
                f'{steps[name].case}: not timed')
    return found


def peak_memory(step: Step) -> int | None:
    """Measure the peak memory of a step in bytes, without the weights."""
    device = step.x.device
    if device.type == 'cuda':
        for p in step.model.parameters():
            p.grad = None
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if hasattr(step.model.forward, '_torchdynamo_orig_callable'):
        return None  # compiled code hides its tensors on a CPU
    if isinstance(step.model, FileBackbone):
        return None  # so do other runtimes
    for p in step.model.parameters():
        p.grad = None
    with PeakMemory() as memory:
        step()
    return memory.peak


def bounds(step: Step, limits: Limits) -> dict[str, float]:
    """Count the operations and bytes of a step, and their minimal time.

    A backward pass is counted as two forward passes, as torch's own count
    treats depth-wise convolutions as dense ones.
    """
    with FlopCounterMode(display=False) as counter:
        step.forward()
    with Traffic() as traffic:
        step()
    passes = 3 if step.case.mode == 'train' else 1
    flops = passes * counter.get_total_flops()
    return dict(
        flops=flops,
        products_seconds=flops / limits.flops,
        bytes=traffic.total,
        traffic_seconds=traffic.total / limits.bandwidth)


def time_in_turns(steps: Mapping[str, Callable[[], Any]],
                  device: torch.device, repeats: int,
                  warm: bool) -> dict[str, list[float]]:
    """Return the seconds of each step in each of several rounds.

    Args:
        steps: Functions to time.
        device: Device that they use.
        repeats: Number of rounds.
        warm: Call each function once more, untimed, before it is timed. Idle
            threads of one runtime spin for a while, and slow the next one
            down.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            if warm:
                step()
            times[name].append(seconds(step, device))
    return times


def compare(case: Case, names: Sequence[str], device: torch.device,
            repeats: int, limits: Limits) -> dict[str, Any]:
    """Time networks with interleaved rounds.

    Returns:
        The case, its bounds, and for each network the median and the
        quartiles of seconds, images per second, the median over rounds of the
        ratio to the first network, and the peak memory in bytes.
    """
    if case.threads:
        torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    x = torch.randn(case.batch, 3, *case.size, device=device)
    steps = {name: Step(build(name, case, device), case, x) for name in names}
    differences = check_equal(steps)
    is_mixed = any(isinstance(s.model, FileBackbone) for s in steps.values())
    times = time_in_turns(steps, device, repeats, is_mixed)
    rows = {}
    for name, step in steps.items():
        low, median, high = statistics.quantiles(times[name], n=4)
        rows[name] = dict(
            seconds=median,
            quartiles=[low, high],
            images_per_second=case.batch / median,
            ratio=statistics.median(
                a / b for a, b in zip(times[names[0]], times[name])),
            peak_bytes=peak_memory(step),
            difference=differences.get(name))
    plain = next((n for n in ('ours', 'mmpose') if n in steps), None)
    found = bounds(steps[plain], limits) if plain else {}
    return dict(case=asdict(case), bounds=found, subjects=rows)


def operations(case: Case, names: Sequence[str],
               device: torch.device) -> dict[str, dict[str, float]]:
    """Profile the seconds of a step in each operation, by network."""
    torch.manual_seed(0)
    x = torch.randn(case.batch, 3, *case.size, device=device)
    where = 'device' if device.type == 'cuda' else 'cpu'
    found = {}
    for name in names:
        step = Step(build(name, case, device), case, x)
        step()
        step()
        with profile() as profiler:
            for _ in range(PROFILED):
                step()
            synchronize(device)
        found[name] = {
            event.key:
            getattr(event, f'self_{where}_time_total') / 1e6 / PROFILED
            for event in profiler.key_averages()
        }
    return found
