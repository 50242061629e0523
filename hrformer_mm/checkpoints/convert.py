# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""From any layout to ours and back, tensor by tensor."""
from collections import OrderedDict
from dataclasses import dataclass, field
from math import isqrt
from typing import Dict, List, Mapping, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.attention import relative_position_index
from .keymap import (BACKBONE, INDEX, LAYOUTS, Q_PROJ, QKV, TABLE, recognise,
                     rename, roots)

# Entries of a file that may hold the tensors, the best first. mmengine's
# EMAHook stores the averaged weights as state_dict.
CONTAINERS = ('state_dict', 'model', 'module', 'state_dict_ema', 'model_ema',
              'ema_state_dict')  # yapf: disable
StateDict = Dict[str, Tensor]


@dataclass
class Report:
    """What became of the tensors of a file.

    Attributes:
        source: Layout of the file.
        matched: Tensors taken.
        converted: Of these, how many were renamed, joined or split.
        interpolated: Bias tables taken to another window.
        dropped: Tensors the target has no use for (indices, other outputs).
        missing: Names the target has and the file has not.
        unexpected: Names that belong to no part of the layout.
    """
    source: str
    matched: int = 0
    converted: int = 0
    interpolated: List[str] = field(default_factory=list)
    dropped: List[str] = field(default_factory=list)
    missing: List[str] = field(default_factory=list)
    unexpected: List[str] = field(default_factory=list)

    def __str__(self) -> str:
        words = [f'{self.source} weights: {self.matched} tensors matched',
                 f'{self.converted} converted']
        for name in ('interpolated', 'dropped', 'missing', 'unexpected'):
            names = getattr(self, name)
            words.append(f'{len(names)} {name}' + first_few(
                names if name != 'dropped' else []))
        return ', '.join(words)


def first_few(names: List[str], most: int = 3) -> str:
    """`` (a, b, c, ...)``, or nothing for no names."""
    if not names:
        return ''
    dots = ', ...' if len(names) > most else ''
    return f' ({", ".join(names[:most])}{dots})'


def unwrap(checkpoint: Mapping, key: Optional[str] = None) -> Mapping:
    """The state dict inside a checkpoint, or the checkpoint if it is one.

    Args:
        key: The entry that holds it, where several do.

    Raises:
        ValueError: If there is none.
    """
    if key is not None:
        if key not in checkpoint:
            raise ValueError(f'the file has no entry {key!r}, only '
                             f'{list(checkpoint)[:8]}')
        return checkpoint[key]
    for name in CONTAINERS:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping) and any(
                isinstance(v, (Tensor, Mapping)) for v in inner.values()):
            return unwrap(inner)
    return checkpoint


def strip(state_dict: Mapping) -> Tuple[StateDict, List[str]]:
    """Remove wrappers such as ``module.`` from the names.

    Returns:
        The tensors, of which the backbone's are named ``backbone.`` or not at
        all, and the names outside the wrapper.

    Raises:
        ValueError: If no backbone is among them, or more than one.
    """
    found = roots(state_dict)
    if not found:
        raise ValueError(
            'this is not an HRFormer checkpoint: no tensor is called '
            f'*stage2.0.fuse_layers.*, but {first_few(list(state_dict))}')
    if len(found) > 1:
        raise ValueError(
            f'the checkpoint holds {len(found)} backbones, under {found}')
    wrapper = found[0]
    if wrapper.endswith(BACKBONE):
        wrapper = wrapper[:-len(BACKBONE)]
    inside = OrderedDict((k[len(wrapper):], v) for k, v in state_dict.items()
                         if k.startswith(wrapper) and isinstance(v, Tensor))
    return inside, [k for k in state_dict if not k.startswith(wrapper)]


def bare(state_dict: StateDict) -> StateDict:
    """Name a backbone that stands alone as part of a model."""
    return OrderedDict((BACKBONE + k, v) for k, v in state_dict.items())


def to_ours(state_dict: StateDict, source: str, report: Report) -> StateDict:
    """Rename to our layout, join q, k and v, and drop derived buffers."""
    layout, out = LAYOUTS[source], OrderedDict()
    for key, value in state_dict.items():
        match = Q_PROJ.match(key) if layout.split_qkv else None
        if key.endswith(INDEX):
            report.dropped.append(key)
            continue
        if match:
            parts = [f'{match[1]}{x}_proj.{match[2]}' for x in 'qkv']
            if all(p in state_dict for p in parts):
                key = f'{match[1]}qkv.{match[2]}'
                value = torch.cat([state_dict[p] for p in parts])
        elif layout.split_qkv and is_joined(key, state_dict):
            continue
        name = rename(key, layout, to_ours=True)
        if name is None:
            report.unexpected.append(key)
            name = key
        report.converted += name != key or bool(match)
        out[name] = value
    return out


def is_joined(key: str, state_dict: StateDict) -> bool:
    """Whether a key or value projection is joined to its queries."""
    for x in 'kv':
        if f'.attn.attn.{x}_proj.' in key:
            return key.replace(f'.{x}_proj.', '.q_proj.') in state_dict
    return False


def from_ours(state_dict: StateDict, to: str, report: Report) -> StateDict:
    """Rename from our layout, split q, k and v, and add derived buffers."""
    layout, out = LAYOUTS[to], OrderedDict()
    for key, value in state_dict.items():
        match = QKV.match(key) if layout.split_qkv else None
        keys, values = [key], [value]
        if match:
            keys = [f'{match[1]}{x}_proj.{match[2]}' for x in 'qkv']
            values = value.chunk(3)
        elif layout.index and key.endswith(TABLE):
            keys.append(key[:-len(TABLE)] + INDEX)
            values.append(
                relative_position_index(window_of(value)).to(value.device))
        for k, v in zip(keys, values):
            name = rename(k, layout, to_ours=False)
            if name is None:
                report.unexpected.append(k)
                name = k
            report.converted += name != key
            out[name] = v
    return out


def convert(checkpoint: Mapping,
            to: str = 'ours',
            source: Optional[str] = None) -> Tuple[StateDict, Report]:
    """Name the tensors of a checkpoint as another code base does.

    Args:
        checkpoint: Of any layout, a state dict or what holds one. It is not
            changed; tensors that only change their name are shared.
        to: One of :data:`~hrformer_mm.checkpoints.keymap.LAYOUTS`.
        source: Its layout; by default recognised from the names.

    Raises:
        ValueError: If it is not an HRFormer's.
    """
    tensors, outside = strip(unwrap(checkpoint))
    source = source or recognise(tensors)
    if source != 'official-cls' and not any(
            k.startswith(BACKBONE) for k in tensors):
        tensors = bare(tensors)
    report = Report(source, unexpected=list(outside))
    if source != 'ours':
        tensors = to_ours(tensors, source, report)
    if to != 'ours':
        tensors = from_ours(tensors, to, report)
    report.matched = len(tensors)
    return tensors, report


def window_of(table: Tensor) -> int:
    """Window size of a bias table [(2w-1)**2, heads].

    Raises:
        ValueError: If no window has a table of this length.
    """
    side = isqrt(len(table))
    if side * side != len(table) or side % 2 == 0:
        raise ValueError(f'a relative position bias table of {len(table)} '
                         'rows fits no window')
    return (side + 1) // 2


def interpolate_table(table: Tensor, window_size: int) -> Tensor:
    """Take a bias table [(2w-1)**2, heads] to another window.

    Bilinear on the grid of relative positions, as the official segmentation
    code does for windows of 13 and 15.
    """
    old, new = 2 * window_of(table) - 1, 2 * window_size - 1
    grid = table.t().reshape(1, -1, old, old).float()
    grid = F.interpolate(grid, (new, new), mode='bilinear')
    return grid.flatten(2)[0].t().contiguous().to(table.dtype)
