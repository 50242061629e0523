# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Names and shapes of the tensors in checkpoints of other code bases.

Written down from those code bases and not from our key map, which is tested
with them. ``counts`` in the tests hold them to published numbers.
"""
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import gcd, prod

import torch
from torch import Tensor

from hrformer_mm.core.arch import Arch

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]
TINY = Arch((4, 8, 12, 16), (1, 2, 3, 4), (1, 2, 1), blocks=1)


def conv(name: str,
         c_in: int,
         c_out: int,
         kernel: int = 1,
         groups: int = 1,
         bias: bool = False) -> Named:
    yield f'{name}.weight', (c_out, c_in // groups, kernel, kernel)
    if bias:
        yield f'{name}.bias', (c_out, )


def linear(name: str, c_in: int, c_out: int) -> Named:
    yield f'{name}.weight', (c_out, c_in)
    yield f'{name}.bias', (c_out, )


def norm(name: str, c: int) -> Named:
    yield f'{name}.weight', (c, )
    yield f'{name}.bias', (c, )


def batch_norm(name: str, c: int) -> Named:
    yield from norm(name, c)
    yield f'{name}.running_mean', (c, )
    yield f'{name}.running_var', (c, )
    yield f'{name}.num_batches_tracked', ()


def bottleneck(name: str,
               c_in: int,
               inner: int,
               c_out: int,
               groups: int = 1) -> Named:
    sizes = ((c_in, inner, 1, 1), (inner, inner, 3, groups), (inner, c_out, 1,
                                                              1))
    for i, (a, b, kernel, groups) in enumerate(sizes, start=1):
        yield from conv(f'{name}.conv{i}', a, b, kernel, groups)
        yield from batch_norm(f'{name}.bn{i}', b)
    if c_in != c_out:
        yield from conv(f'{name}.downsample.0', c_in, c_out)
        yield from batch_norm(f'{name}.downsample.1', c_out)


def block(name: str, c: int, heads: int, window: int, style: str,
          tables: bool) -> Named:
    attn = f'{name}.attn.attn'
    yield from norm(f'{name}.norm1', c)
    yield from norm(f'{name}.norm2', c)
    if tables:
        yield (f'{attn}.relative_position_bias_table', ((2 * window - 1)**2,
                                                        heads))
        yield f'{attn}.relative_position_index', (window**2, window**2)
    if style in ('official', 'mmseg-early'):
        for x in ('k_proj', 'v_proj', 'q_proj'):
            yield from linear(f'{attn}.{x}', c, c)
    else:
        yield from linear(f'{attn}.qkv', c, 3 * c)
    out = 'proj' if 'mmpose' in style else 'out_proj'
    yield from linear(f'{attn}.{out}', c, c)
    ffn = f'{name}.mlp' if style == 'official' else f'{name}.ffn'
    names = ['fc1', 'norm1', 'dw3x3', 'norm2', 'fc2', 'norm3']
    if style in ('mmpose-sequential', 'mmseg'):
        names = [f'layers.{i}' for i in (0, 1, 3, 4, 6, 7)]
    yield from conv(f'{ffn}.{names[0]}', c, 4 * c, bias=True)
    yield from batch_norm(f'{ffn}.{names[1]}', 4 * c)
    yield from conv(f'{ffn}.{names[2]}', 4 * c, 4 * c, 3, 4 * c, bias=True)
    yield from batch_norm(f'{ffn}.{names[3]}', 4 * c)
    yield from conv(f'{ffn}.{names[4]}', 4 * c, c, bias=True)
    yield from batch_norm(f'{ffn}.{names[5]}', c)


def fusion(name: str, channels: Sequence[int], outs: int) -> Named:
    for i in range(outs):
        for j, c in enumerate(channels):
            if j > i:
                yield from conv(f'{name}.{i}.{j}.0', c, channels[i])
                yield from batch_norm(f'{name}.{i}.{j}.1', channels[i])
            for s in range(i - j):
                step = f'{name}.{i}.{j}.{s}'
                c_out = channels[i] if s == i - j - 1 else c
                yield from conv(f'{step}.0', c, c, 3, c)
                yield from batch_norm(f'{step}.1', c)
                yield from conv(f'{step}.2', c, c_out)
                yield from batch_norm(f'{step}.3', c_out)


def backbone(arch: Arch,
             window: int,
             style: str,
             maps: int,
             tables: bool = True) -> Named:
    c = arch.channels
    for i, c_in in ((1, 3), (2, 64)):
        yield from conv(f'conv{i}', c_in, 64, 3)
        yield from batch_norm(f'bn{i}', 64)
    yield from bottleneck('layer1.0', 64, 64, 256)
    yield from bottleneck('layer1.1', 256, 64, 256)
    for name, c_in, c_out in (('transition1.0', 256,
                               c[0]), ('transition1.1.0', 256,
                                       c[1]), ('transition2.2.0', c[1], c[2]),
                              ('transition3.3.0', c[2], c[3])):
        yield from conv(f'{name}.0', c_in, c_out, 3)
        yield from batch_norm(f'{name}.1', c_out)
    for stage, depth in enumerate(arch.modules, start=2):
        for m in range(depth):
            name = f'stage{stage}.{m}'
            for b in range(stage):
                for k in range(arch.blocks):
                    yield from block(f'{name}.branches.{b}.{k}', c[b],
                                     arch.heads[b], window, style, tables)
            last = stage == 4 and m == depth - 1
            yield from fusion(f'{name}.fuse_layers', c[:stage],
                              maps if last else stage)


def cls_head(arch: Arch, classes: int) -> Named:
    widths = (128, 256, 512, 1024)
    for i, (c, width) in enumerate(zip(arch.channels, widths)):
        yield from bottleneck(
            f'incre_modules.{i}.0', c, width // 4, width, groups=width // 4)
    for i, (a, b) in enumerate(zip(widths, widths[1:])):
        name = f'downsamp_modules.{i}'
        yield from conv(f'{name}.0', a, a, 3, a, bias=True)
        yield from batch_norm(f'{name}.1', a)
        yield from conv(f'{name}.2', a, b, bias=True)
        yield from batch_norm(f'{name}.3', b)
    yield from conv('final_layer.0', 1024, 2048, bias=True)
    yield from batch_norm('final_layer.1', 2048)
    yield from linear('classifier', 2048, classes)


def conv_bn_relu(name: str,
                 c_in: int,
                 c_out: int,
                 kernel: int = 1,
                 groups: int = 1,
                 at: int = 0) -> Named:
    yield from conv(f'{name}.{at}', c_in, c_out, kernel, groups, bias=True)
    yield from batch_norm(f'{name}.{at + 1}.0', c_out)


def seg_head(arch: Arch, classes: int, version: int) -> Named:
    c_in = sum(arch.channels)
    large = (3, 1) if version == 2 else (7, gcd(c_in, 512))
    yield from conv_bn_relu('conv3x3', c_in, 512, *large)
    context = 'ocr_distri_head.object_context_block'
    for name in ('f_pixel', 'f_object'):
        yield from conv_bn_relu(f'{context}.{name}', 512, 256)
        yield from conv_bn_relu(f'{context}.{name}', 256, 256, at=2)
    yield from conv_bn_relu(f'{context}.f_down', 512, 256)
    yield from conv_bn_relu(f'{context}.f_up', 256, 512)
    yield from conv_bn_relu('ocr_distri_head.conv_bn_dropout', 1024, 512)
    yield from conv('cls_head', 512, classes, bias=True)
    yield from conv_bn_relu('aux_head', c_in, 512, *large)
    yield from conv('aux_head.2', 512, classes, bias=True)


def names(layout: str,
          arch: Arch,
          window: int = 7,
          classes: int = 0,
          version: int = 2,
          maps: int | None = None,
          tables: bool = True) -> list[tuple[str, Shape]]:
    """All tensors of a whole model in ``layout``.

    Args:
        classes: Or keypoints; by default as many as the released models.
        version: Version of the official segmentation head.
    """
    style = 'official' if layout.startswith('official') else layout
    task = layout.partition('-')[2] if style == 'official' else 'pose'
    maps = maps or (4 if task in ('cls', 'seg') else 1)
    body = backbone(arch, window, style, maps, tables)
    if task == 'cls':
        return [*body, *cls_head(arch, classes or 1000)]
    body = [(f'backbone.{name}', shape) for name, shape in body]
    if task == 'seg':
        return [*body, *seg_head(arch, classes or 19, version)]
    if 'mmseg' in layout:
        return body
    old = layout in ('official-pose', 'mmpose-0.x')
    return [*body, *conv('keypoint_head.final_layer' if old else
                         'head.final_layer', arch.channels[0], classes or 17,
                         bias=True)]  # yapf: disable


@lru_cache
def index(window: int) -> Tensor:
    """Relative position index as Swin's code computes it."""
    axis = torch.arange(window)
    at = torch.stack(torch.meshgrid(axis, axis, indexing='ij')).flatten(1)
    gap = at[:, :, None] - at[:, None, :] + window - 1
    return gap[0] * (2 * window - 1) + gap[1]


def random_tensors(named: Sequence[tuple[str, Shape]],
                   dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random values; counters and indices are what they must be.

    Tensors are slices of one random tensor, which is quick for large models.
    """
    sizes = [prod(shape) for _, shape in named]
    pool = torch.rand(max(sizes) + 10_000, dtype=dtype) * .2 + .05
    starts = torch.randint(10_000, (len(sizes), )).tolist()

    def value(name: str, shape: Shape, size: int, start: int) -> Tensor:
        if name.endswith('num_batches_tracked'):
            return torch.tensor(start)
        if name.endswith('relative_position_index'):
            return index(round(shape[0]**.5))
        return pool[start:start + size].view(shape)

    return {
        name: value(name, shape, size, start)
        for (name, shape), size, start in zip(named, sizes, starts)
    }
