# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Infer the arguments of a network from its tensors."""
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..core.arch import ARCHS, Arch, get_arch
from .convert import window_of
from .keymap import BACKBONE, TABLE, out_indices


def count_matches(keys: Iterable[str], pattern: str) -> int:
    """Return one more than the highest number that the pattern finds."""
    found = map(re.compile(pattern).match, keys)
    return 1 + max((int(m[1]) for m in found if m), default=-1)


def infer_arguments(
        state_dict: Mapping[str, Tensor],
        arch: None | str | Arch | Mapping = None) -> dict[str, Any]:
    """Infer the arguments of :class:`hrformer_mm.core.HRFormer`.

    Args:
        state_dict: Tensors in our layout.
        arch: Size of the network, which determines the number of heads if
            neither the tensors nor the channels do.

    Raises:
        ValueError: If the tensors are not those of a whole backbone.
    """
    tensors = {
        k[len(BACKBONE):]: v
        for k, v in state_dict.items() if k.startswith(BACKBONE)
    }
    try:
        return describe_backbone(tensors, get_arch(arch) if arch else None)
    except (KeyError, IndexError, TypeError) as error:
        what = 'lack' if isinstance(error, KeyError) else 'have odd shapes:'
        raise ValueError('these are not the weights of a whole backbone, they '
                         f'{what} {error}') from None


def describe_backbone(tensors: Mapping[str, Tensor],
                      arch: Arch | None) -> dict[str, Any]:
    """Infer the arguments of a backbone from names and shapes."""
    fourth = ('stage4.', 'transition3.')  # networks of three branches lack
    final = 4 if any(k.startswith(fourth) for k in tensors) else 3
    branch = f'stage{final}.0.branches.{{}}.0.'.format
    conv = branch(0) + 'conv1.weight' in tensors
    inner = 'conv1.weight' if conv else 'norm1.weight'
    channels = tuple(len(tensors[branch(b) + inner]) for b in range(final))
    modules = tuple(
        count_matches(tensors, rf'stage{stage}\.(\d+)\.')
        for stage in range(2, final + 1))
    sizes: dict[str, Any] = dict(
        channels=channels,
        modules=modules,
        blocks=count_matches(tensors, r'stage2\.0\.branches\.0\.(\d+)\.'))
    args = dict(
        in_channels=tensors['conv1.weight'].shape[1],
        out_indices=out_indices(tensors))
    if conv:
        # Convolutions have no heads; one always divides the channels.
        heads = (1, ) * final
        return dict(arch=Arch(heads=heads, **sizes), block='conv', **args)
    fc1 = tensors[branch(0) + 'ffn.fc1.weight']
    sizes['mlp_ratio'] = len(fc1) // channels[0]
    names = [f'{branch(b)}attn.attn.{TABLE}' for b in range(final)]
    has_tables = names[0] in tensors
    if not has_tables:
        sizes['heads'] = attention_heads(channels, arch)
    else:
        tables = [tensors[name] for name in names]
        sizes['heads'] = tuple(t.shape[1] for t in tables)
        windows = [window_of(t) for t in tables]
        # A window for each of four branches, also where there are three.
        args['window_size'] = tuple(windows + windows[-1:] * (4 - final))
    args['rel_pos_bias'] = has_tables
    args['ffn'] = ('mlp' if fc1.ndim == 2 else 'dwconv' if branch(0) +
                   'ffn.dw3x3.weight' in tensors else 'nodw')
    return dict(arch=Arch(**sizes), **args)


def attention_heads(channels: tuple[int, ...],
                    arch: Arch | None) -> tuple[int, ...]:
    """Return the numbers of heads of the size with these channels.

    Raises:
        ValueError: If neither ``arch`` nor a size of the paper has them.
    """
    for known in [arch] if arch else ARCHS.values():
        if known.channels == channels:
            return known.heads
    raise ValueError(f'the numbers of heads of branches with {channels} '
                     'channels are unknown; pass arch')


def arch_name(arch: Arch) -> str:
    """Return ``'tiny'``, ``'small'``, ``'base'`` or the repr of the size."""
    names = [name for name, known in ARCHS.items() if known == arch]
    return names[0] if names else repr(arch)
