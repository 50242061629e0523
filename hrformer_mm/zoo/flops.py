# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Count the operations of a forward pass by several conventions.

A network runs once on the meta device, without memory or time for data. Every
tensor operation is recorded with its size and the module that called it. A
convention then defines the cost of each operation. All of them count one
multiply-add as one.
"""
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

WHY_THEY_DIFFER = (
    'macs are the multiply-adds of all convolutions and matrix products; '
    'mmengine adds norms and resizing; paper-cls and paper-seg (Tables 5-7 '
    'and 11) add batch norm, softmax and element-wise operations; paper-pose '
    '(Tables 3 and 4) hooks modules, so it misses the matrix products of '
    'attention and its output projection.')


@dataclass(frozen=True)
class Op:
    """One call of a tensor operation."""
    kind: str
    module: str  # name of the module that called it
    macs: int = 0  # multiply-adds, without the bias
    size: int = 0  # elements of the result; of the input, for pooling
    bias: bool = False
    in_place: bool = False


def conv_macs(out: Tensor, x: Tensor, weight: Tensor, *_, **__) -> int:
    return out.numel() * weight[0].numel()


def deconv_macs(out: Tensor, x: Tensor, weight: Tensor, *_, **__) -> int:
    return x.numel() * weight[0].numel()


def matmul_macs(out: Tensor, a: Tensor, *_, **__) -> int:
    return out.numel() * a.shape[-1]


def baddbmm_macs(out: Tensor, bias: Tensor, a: Tensor, *_, **__) -> int:
    return out.numel() * a.shape[-1]


def einsum_macs(out: Tensor, equation: str, *operands, **_) -> int:
    """Count the product of the extents of all indices, for two operands."""
    sizes: dict[str, int] = {}
    for term, x in zip(equation.split('->')[0].split(','), operands):
        sizes.update(zip(term.strip(), x.shape))
    return int(torch.Size(sizes.values()).numel())


PRODUCTS: dict[str, Callable[..., int]] = dict(
    conv1d=conv_macs, conv2d=conv_macs, conv_transpose2d=deconv_macs,
    linear=matmul_macs, matmul=matmul_macs, bmm=matmul_macs, mm=matmul_macs,
    baddbmm=baddbmm_macs, addmm=baddbmm_macs,
    einsum=einsum_macs)  # yapf: disable
OTHERS = ('add', 'sub', 'mul', 'div', 'relu', 'softmax', 'dropout',
          'batch_norm', 'layer_norm', 'group_norm', 'interpolate',
          'adaptive_avg_pool2d')
ALIASES = dict(iadd='add', radd='add', rsub='sub', rmul='mul', imul='mul',
               truediv='div', true_divide='div', rmatmul='matmul',
               multiply='mul')  # yapf: disable


def plain_attention(q: Tensor,
                    k: Tensor,
                    v: Tensor,
                    attn_mask: Tensor | None = None,
                    dropout_p: float = 0.,
                    is_causal: bool = False,
                    scale: float | None = None) -> Tensor:
    """Compute attention in single operations, like the official code."""
    scale = q.shape[-1]**-.5 if scale is None else scale
    scores = torch.matmul(q * scale, k.transpose(-2, -1))
    if attn_mask is not None:
        scores = scores + attn_mask
    weights = F.dropout(F.softmax(scores, -1), dropout_p, training=False)
    return torch.matmul(weights, v)


@contextmanager
def attention_in_the_open() -> Iterator[None]:
    """Decompose the fused attention kernel, so that counters see it."""
    fused = F.scaled_dot_product_attention
    setattr(F, 'scaled_dot_product_attention', plain_attention)
    try:
        yield
    finally:
        setattr(F, 'scaled_dot_product_attention', fused)


class OperationRecorder(TorchFunctionMode):
    """Record tensor operations while the context is active.

    Args:
        model: Model whose module names are recorded.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.ops: list[Op] = []
        self.stack: list[tuple[str, nn.Module]] = [('', model)]

    def __enter__(self) -> 'OperationRecorder':
        self.hooks = []
        for name, module in self.model.named_modules():
            self.hooks += [
                module.register_forward_pre_hook(
                    lambda m, _, name=name: self.stack.append((name, m))),
                module.register_forward_hook(lambda *_: self.stack.pop() and
                                             None)
            ]
        return super().__enter__()

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()
        return super().__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, '__name__', '')
        kind = name.strip('_')
        kind = ALIASES.get(kind, kind)
        if isinstance(out, Tensor) and (kind in PRODUCTS or kind in OTHERS):
            self.record(kind, name, out, args, kwargs)
        if kind == 'multi_head_attention_forward':
            self.record_projected(args[0], args[1], heads=args[4])
        if kind == 'scaled_dot_product_attention':
            self.record_attention(*args[:3])
        return out

    def record_attention(self, q: Tensor, k: Tensor, v: Tensor):
        """Record a fused kernel; q is [..., L, C], k and v are [..., S, C].

        :func:`attention_in_the_open` has no effect in modules that imported
        the function by name.
        """
        module, scores = self.stack[-1][0], q[..., 0].numel() * k.shape[-2]
        self.ops += [Op('matmul', module, scores * q.shape[-1]),
                     Op('softmax', module, size=scores),
                     Op('matmul', module, scores * v.shape[-1])]

    def record_projected(self, q: Tensor, k: Tensor, heads: int):
        """Record ``nn.MultiheadAttention``, whose operations no mode sees.

        Args:
            q: Queries [L, B, C], before their projection.
            k: Keys [S, B, C], before their projection.
            heads: Number of attention heads.
        """
        C = q.shape[-1]
        products = [q.numel() * C] * 2 + [k.numel() * C] * 2
        self.ops += [Op('matmul', self.stack[-1][0], macs)
                     for macs in products]
        q, k = (x.transpose(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2)
                for x in (q, k))  # [B, heads, L, C / heads]
        self.record_attention(q, k, k)

    def record(self, kind: str, called: str, out: Tensor, args, kwargs):
        module, owner = self.stack[-1]
        if kind == 'linear' and len(args) > 1:  # maybe of a submodule
            for name, child in owner.named_children():
                if getattr(child, 'weight', None) is args[1]:
                    module, owner = f'{module}.{name}', child
        macs, bias, size = 0, False, out.numel()
        if kind in PRODUCTS:
            macs = PRODUCTS[kind](out, *args, **kwargs)
            bias = getattr(owner, 'bias', None) is not None
        if kind == 'linear' and isinstance(owner, nn.Conv2d):
            kind = 'conv2d'  # a 1x1 convolution as matrix product
        if kind == 'interpolate':
            kind = kwargs.get('mode', 'nearest')
        if kind == 'adaptive_avg_pool2d':
            size = args[0].numel()
        in_place = bool(kwargs.get('inplace')) or called.startswith('__i') or (
            called.endswith('_') and not called.endswith('__'))
        self.ops.append(Op(kind, module, macs, size, bias, in_place))


def mmengine_worth(op: Op) -> int:
    """Count like ``mmengine.analysis.FlopAnalyzer``, in eval mode."""
    weights = dict(batch_norm=2, layer_norm=5, group_norm=5, nearest=1,
                   bilinear=4, adaptive_avg_pool2d=1)  # yapf: disable
    return op.macs + weights.get(op.kind, 0) * op.size


def fvcore_worth(op: Op) -> int:
    """Count like the official cls and seg code, a fork of fvcore.

    It skips layer norm, GELU, resizing, pooling and in-place products.
    """
    weights = dict(batch_norm=4, softmax=5, add=1, sub=1, mul=1, div=1,
                   relu=1, dropout=1)  # yapf: disable
    if op.kind == 'mul' and op.in_place:
        return 0
    return op.macs + weights.get(op.kind, 0) * op.size


def paper_cls_worth(op: Op) -> int:
    """Count like :func:`fvcore_worth` in the official cls code.

    There, a dropout of rate 0 follows every activation of the FFN.
    """
    dropout = op.kind == 'batch_norm' and '.ffn.' in op.module
    return fvcore_worth(op) + dropout * op.size


def paper_seg_worth(op: Op) -> int:
    """Count like :func:`fvcore_worth` in the official seg code.

    There, linear layers are traced as a product and the sum with the bias.
    """
    added = op.kind == 'linear' and op.bias
    return fvcore_worth(op) + added * op.size


def paper_pose_worth(op: Op) -> int:
    """Count like the official pose code, mmcv 1.2.2's hooks on modules.

    It misses matrix products and the output projection of attention, which are
    function calls there, and the batch norms of the FFN, which are SyncBN.
    """
    if op.kind == 'conv2d':
        return op.macs + op.bias * op.size
    if op.kind == 'linear':
        return 0 if op.module.endswith('attn.attn.proj') else op.macs
    if op.kind == 'batch_norm':
        return 0 if '.ffn.' in op.module else 2 * op.size
    return op.size if op.kind in ('relu', 'nearest', 'bilinear') else 0


CONVENTIONS: dict[str, Callable[[Op], int]] = {
    'macs': lambda op: op.macs,
    'mmengine': mmengine_worth,
    'paper-cls': paper_cls_worth,
    'paper-seg': paper_seg_worth,
    'paper-pose': paper_pose_worth,
}
# Parts of HRFormer and HRNet that the paper assigns to a stage.
STAGES = {'': 'stem', 'conv1': 'stem', 'bn1': 'stem', 'conv2': 'stem',
          'bn2': 'stem', 'layer1': 'stage1', 'transition1': 'stage2',
          'transition2': 'stage3', 'transition3': 'stage4'}  # yapf: disable


def stage_of(module: str) -> str:
    """Return the group that a module is counted in: a stage, or a part."""
    part, _, rest = module.partition('.')
    if part == 'backbone':
        part = rest.partition('.')[0]
    return STAGES.get(part, part)


@dataclass(frozen=True)
class Count:
    """Cost of one image, by stage and by convention."""
    parameters: int
    shape: tuple[int, int]
    stages: dict[str, dict[str, int]]  # stage -> convention -> count

    def total(self, convention: str) -> int:
        return sum(stage[convention] for stage in self.stages.values())


# Regions in the second stage of a detector: boxes, and masks.
REGIONS = (1000, 100)


def forward_two_stages(detector: Any, images: Tensor) -> list[Any]:
    """Run all networks of a two-stage detector, and return their outputs.

    Its regions depend on the images; :data:`REGIONS` of each are assumed.
    """
    maps = detector.extract_feat(images)
    outputs = [detector.rpn_head(maps)]
    head, (count, channels) = detector.roi_head, maps[0].shape[:2]
    # A cascade averages the masks of its stages.
    for name, number, size in (('bbox_head', REGIONS[0], 7),
                               ('mask_head', REGIONS[1], 14)):
        found = getattr(head, name, [])
        layers = found if isinstance(found, (list, nn.ModuleList)) else [found]
        for layer in layers:
            outputs.append(layer(images.new_empty(
                count * number, channels, size, size)))  # yapf: disable
    return outputs


def padded_shape(model: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """Pad height and width as detectors do, whose pyramids need it."""
    divisor = getattr(
        getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    height, width = (-(-length // divisor) * divisor for length in shape)
    return height, width


def run_networks(model: nn.Module, images: Tensor) -> Any:
    """Run the networks of a backbone or a model, without post-processing."""
    if hasattr(model, 'roi_head'):
        return forward_two_stages(model, images)
    if isinstance(model, BaseModel):
        return model(images, data_samples=None, mode='tensor')
    return model(images)


def record(model: nn.Module, shape: Sequence[int]) -> list[Op]:
    """Record the operations of a forward pass on one image [1, 3, *shape].

    Args:
        model: Model on any device; on meta nothing is computed.
        shape: Height and width.

    Raises:
        ValueError: If a length is not positive.
    """
    if min(shape) < 1:
        raise ValueError(f'height and width must be at least 1, got '
                         f'{tuple(shape)}')
    device = next(model.parameters()).device
    image = torch.empty(1, 3, *padded_shape(model, shape), device=device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), attention_in_the_open(), OperationRecorder(
            model) as recorder:
        run_networks(model, image)
    model.train(was_training)
    return recorder.ops


def count(model: nn.Module, shape: tuple[int, int]) -> Count:
    """Count parameters, and the cost of one image by each convention.

    Args:
        model: A backbone, or a whole model of the frameworks.
        shape: Height and width of the image.
    """
    stages: dict[str, dict[str, int]] = defaultdict(
        lambda: dict.fromkeys(CONVENTIONS, 0))
    for op in record(model, shape):
        stage = stages[stage_of(op.module)]
        for name, worth in CONVENTIONS.items():
            stage[name] += worth(op)
    parameters = sum(p.numel() for p in model.parameters())
    return Count(parameters, (shape[0], shape[1]), dict(stages))


def plot(counted: Count, path: str, title: str = ''):
    """Plot the stages of a count as bars, one colour per convention."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(figsize=(8, 4), layout='constrained')
    width = .8 / len(CONVENTIONS)
    for i, name in enumerate(CONVENTIONS):
        axes.bar([x + i * width for x in range(len(counted.stages))],
                 [stage[name] / 1e9 for stage in counted.stages.values()],
                 width,
                 label=f'{name}: {counted.total(name) / 1e9:.3f}')
    axes.set_xticks([x + .4 - width / 2 for x in range(len(counted.stages))],
                    counted.stages)
    axes.set_ylabel('billion multiply-adds')
    axes.set_title(title)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
