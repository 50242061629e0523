# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Count the launches, bytes and operations of a network on a pretended GPU.

Rules, the same for every network:

1. An operation that PyTorch dispatches below autograd is one launch. It reads
   its arguments and writes its results, once each. Views and allocations are
   free; an expanded axis (stride 0) is read once.
2. Attention is PyTorch's memory-efficient kernel where that accepts the
   channels of the heads; a bias whose rows are not multiples of 8 elements
   apart is padded first, as PyTorch does. Otherwise attention is the products
   and the softmax that PyTorch falls back to.
3. Batch norm in training reads its input twice, once for the statistics, and
   its backward pass reads input and gradient twice. The backward pass of a
   convolution is one launch for each gradient, which reads what it needs.
4. Rows that are gathered are read and written once, rows that are filled are
   written once, whatever the size of the source or the target.
5. A launch takes the longest of: :attr:`GPU.launch`, its bytes at
   :attr:`GPU.bandwidth`, its multiply-adds at the rate of the precision.

What they leave out: workspaces and several kernels inside one operation (such
as the addition of a bias after cuDNN's convolutions), caches, and the overlap
of launches. A training step is a forward and a backward pass, without the
optimizer.
"""
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hrformer_mm.utils.costs import tensors_of

DEVICE = torch.device('cuda:0')
aten = torch.ops.aten


@dataclass(frozen=True)
class GPU:
    """Rates of a GPU.

    Attributes:
        bandwidth: Bytes per second of a large copy.
        flops: Operations per second of products, by precision; the vendor's
            figures for dense tensor cores, without TF32 for float32.
        launch: Seconds from one launch to the next in eager PyTorch.
    """
    bandwidth: float
    flops: dict[torch.dtype, float]
    launch: float = 4e-6


HOPPER = {torch.float32: 67e12, torch.float64: 67e12,
          torch.bfloat16: 989e12, torch.float16: 989e12}  # yapf: disable
GPUS = dict(H100=GPU(3.0e12, HOPPER), H200=GPU(4.3e12, HOPPER))


@dataclass(frozen=True)
class Launch:
    """One launch: its operation, and the name of the module it belongs to."""
    op: str
    module: str
    bytes: int
    flops: int
    dtype: torch.dtype

    def seconds(self, gpu: GPU) -> float:
        rate = gpu.flops.get(self.dtype, math.inf)
        return max(gpu.launch, self.bytes / gpu.bandwidth, self.flops / rate)


@dataclass
class Cost:
    """The launches of a step."""
    launches: list[Launch] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(launch.bytes for launch in self.launches)

    def seconds(self, gpu: GPU) -> float:
        return sum(launch.seconds(gpu) for launch in self.launches)

    def by(self, key: Callable[[Launch], str]) -> dict[str, 'Cost']:
        """Split by a property of launches, most bytes first."""
        parts: dict[str, Cost] = defaultdict(Cost)
        for launch in self.launches:
            parts[key(launch)].launches.append(launch)
        return dict(sorted(parts.items(), key=lambda p: -p[1].bytes))


def fake(x: Tensor) -> Tensor:
    """Make a tensor like another on the pretended GPU."""
    return torch.empty_strided(
        x.size(), x.stride(), dtype=x.dtype, device=DEVICE)


def move(model: nn.Module):
    """Put parameters and buffers, of any device, on the pretended GPU."""
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = nn.Parameter(
                    fake(p), p.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)


def size_of(x: Tensor) -> int:
    """Return the bytes of a tensor, expanded axes counted once."""
    pairs = zip(x.shape, x.stride())
    return x.element_size() * math.prod(n for n, step in pairs if step)


def bytes_of(*values: Any) -> int:
    unique = {id(x): size_of(x) for x in tensors_of(values)}
    return sum(unique.values())


def product_flops(op: str, args: Sequence[Any], out: Any) -> int:
    """Count the operations of matrix products; 0 for others."""
    if op in ('mm', 'bmm'):
        return 2 * out.numel() * args[0].shape[-1]
    if op in ('addmm', 'addmm_', '_addmm_activation', 'baddbmm'):
        return 2 * out.numel() * args[1].shape[-1]
    if op == 'convolution':
        weight = args[1]
        pixels = args[0] if args[6] else out  # transposed or not
        return 2 * pixels.numel() * weight[0].numel()
    if op.startswith('_scaled_dot_product'):
        back = 'backward' in op
        q, k = args[1:3] if back else args[:2]
        return (10 if back else 4) * q.numel() * k.shape[-2]
    return 0


def of_convolution_backward(args: Sequence[Any],
                            out: Any) -> Iterator[tuple[int, int]]:
    """Yield bytes and operations of the gradient of each argument."""
    grad, x, weight = args[:3]
    products = 2 * (x if args[7] else grad).numel() * weight[0].numel()
    for needed, other, result in zip(args[10], (weight, x, None), out):
        if needed:
            yield (bytes_of(grad, other, result),
                   0 if other is None else products)


def costs_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any],
             out: Any) -> list[tuple[int, int]]:
    """Return the bytes and operations of the launches of an operation."""
    op = func._schema.name.split('::')[1]
    if op == 'convolution_backward':
        return list(of_convolution_backward(args, out))
    read, written = bytes_of(args, kwargs), bytes_of(out)
    if op in ('index_select', 'index', 'gather', 'embedding'):
        read = written + bytes_of(args[1:], kwargs)
    if op == 'index_fill_':
        x, dim, index = args[:3]
        read = size_of(index)
        written = size_of(x) * index.numel() // x.shape[dim]
    if op == 'norm_gelu_backward':  # as PyTorch's batch norm
        read += sum(map(size_of, args[:2]))
    if 'batch_norm' in op:
        if 'backward' in op:
            read += sum(map(size_of, args[:2]))
        elif len(args) > 5 and args[5] is True:
            read += size_of(args[0])
    flops = product_flops(op, args, out)
    if not func._schema.name.startswith('aten'):  # our own kernels
        formula = flop_registry.get(func._overloadpacket)
        flops = formula(*args, **kwargs, out_val=out) if formula else 0
    return [(read + written, flops)]


def is_free(func: Any) -> bool:
    """Whether an operation starts nothing: views, allocations, questions."""
    name = func._schema.name
    return (
        func.is_view or name.startswith('prim::') or 'empty' in name
        or name in ('aten::detach', 'aten::_unsafe_view', 'aten::alias'))


class Attention(TorchFunctionMode):
    """Attention as CUDA computes it with a bias, see the rules above."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self.attend(*args, **(kwargs or {}))

    @staticmethod
    def attend(q, k, v, attn_mask=None, dropout_p=0., is_causal=False,
               scale=None, enable_gqa=False):
        if q.shape[-1] % (4 if q.dtype == torch.float32 else 8):
            return aten._scaled_dot_product_attention_math(
                q, k, v, attn_mask, dropout_p, is_causal, scale=scale)[0]
        if attn_mask is not None:
            steps = attn_mask.stride()
            if steps[-1] != 1 or any(step % 8 for step in steps[:-1]):
                n = attn_mask.shape[-1]
                attn_mask = F.pad(attn_mask, (0, -n % 8))[..., :n]
            attn_mask = attn_mask.expand(*q.shape[:-1], k.shape[-2])
        return aten._scaled_dot_product_efficient_attention(
            q, k, v, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal,
            scale=scale)[0]


class Counter(TorchDispatchMode):
    """Count the launches that happen inside it, by module.

    Modules are known by their calls, not by hooks, with which the fast paths
    of layers would step aside.

    Attributes:
        cost: All launches.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.names = {m: name for name, m in model.named_modules()}
        self.stack = ['']
        self.cost = Cost()
        self.created: dict[int, str] = {}  # module by number of its node

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.created[torch.autograd._get_sequence_nr() - 1] = self.stack[-1]
        tensors = tensors_of((args, kwargs, out))
        if not is_free(func) and any(True for _ in tensors):
            dtype = next(tensors_of(args), torch.empty(())).dtype
            self.cost.launches += [
                Launch(func._schema.name.split('::')[1], self.stack[-1],
                       moved, flops, dtype)
                for moved, flops in costs_of(func, args, kwargs or {}, out)]
        return out

    @contextmanager
    def inside(self, module: str) -> Iterator[None]:
        self.stack.append(module)
        yield
        self.stack.pop()

    def __enter__(self):
        call, counter = nn.Module.__call__, self

        def named(module, *args, **kwargs):
            name = counter.names.get(module, counter.stack[-1])
            with counter.inside(name):
                return call(module, *args, **kwargs)

        self.patch = mock.patch.object(nn.Module, '__call__', named)
        self.patch.start()
        return super().__enter__()

    def __exit__(self, *error):
        self.patch.stop()
        return super().__exit__(*error)


def call_node(node: Any, grads: Sequence[Any]) -> tuple[Any, ...]:
    out = node.apply(*grads) if hasattr(node, 'apply') else node(*grads)
    return out if isinstance(out, tuple) else (out, )


def fit(grad: Tensor, expected: Any) -> Tensor:
    """Reduce and convert a gradient as the engine of autograd does."""
    if grad.shape != tuple(expected.shape):
        grad = grad.sum_to_size(tuple(expected.shape))
    return grad.to(expected.dtype)


def ready_order(root: Any) -> list[Any]:
    """Return the nodes of a graph, each after all that lead to it."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(n, False) for n, _ in node.next_functions if n]
    return order[::-1]


def backward(loss: Tensor, counter: Counter):
    """Run the backward pass of a loss, node by node.

    The engine of autograd asks the driver for the GPU, so it refuses pretended
    tensors.
    """
    grads: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    grads[loss.grad_fn][0] = torch.ones_like(loss)
    task = mock.patch.object(torch._C, '_current_graph_task_id', lambda: 0)
    with task, torch.no_grad():
        for node in ready_order(loss.grad_fn):
            found = grads.pop(node, {})
            if not found or 'AccumulateGrad' in node.name():
                continue
            count = max(len(node._input_metadata), *(i + 1 for i in found))
            name = counter.created.get(node._sequence_nr(), '')
            with counter.inside(name):
                results = call_node(node, [found.get(i) for i in range(count)])
                for (then, at), grad in zip(node.next_functions, results):
                    if then is None or grad is None:
                        continue
                    grad = fit(grad, then._input_metadata[at])
                    old = grads[then].get(at)
                    grads[then][at] = grad if old is None else old + grad


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Answer what PyTorch asks the driver: a GPU computes in bfloat16."""
    select = torch._C._select_conv_backend
    backends: Any = getattr(torch._C, '_ConvBackend')

    def with_cudnn(*args, **kwargs):
        found = select(*args, **kwargs)
        return backends.Cudnn if found == backends.Slow2d else found

    with (
        mock.patch('torch.cuda.amp.common.amp_definitely_not_available',
                   lambda: False),
        mock.patch('torch.cuda.is_bf16_supported', lambda: True),
        mock.patch.object(torch._C, '_select_conv_backend', with_cudnn)
    ):
        yield


def count(model: nn.Module,
          step: Callable[[], Any],
          training: bool,
          dtype: torch.dtype = torch.float32) -> Cost:
    """Count a step of a model whose tensors are on the pretended GPU.

    Args:
        model: Model, moved by :func:`move` inside ``FakeTensorMode``.
        step: Function that runs the model; it returns the loss if
            ``training``.
        training: Count a forward and a backward pass.
        dtype: Precision of autocast; float32 for none.
    """
    model.train(training)
    counter = Counter(model)
    with torch.set_grad_enabled(training), Attention(), as_on_a_gpu():
        amp = torch.autocast('cuda', dtype, dtype != torch.float32)
        if not training:
            with amp:
                step()  # fills caches
        with counter:
            with amp:
                out = step()
            if training:
                backward(out, counter)
    return counter.cost
