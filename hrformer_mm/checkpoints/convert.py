# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Convert checkpoints between our layout and any other, tensor by tensor."""
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.arch import ARCHS, Arch, get_arch
from ..core.attention import relative_position_index
from .baselines import DERIVED, FROM_OURS, TO_OURS
from .keymap import (
    BACKBONE,
    INDEX,
    LAYOUTS,
    PLAIN_HRNET,
    Q_PROJ,
    QKV,
    ROOTS,
    TABLE,
    is_hrnet,
    recognise,
    rename,
    roots,
)

# Entries of a file that may hold the tensors, the preferred first: mmengine's
# EMAHook stores the averaged weights as state_dict, the raw ones beside it.
CONTAINERS = ('state_dict', 'model', 'module', 'state_dict_ema', 'model_ema',
              'ema_state_dict')  # yapf: disable
MARK = 'hrformer_mm'  # our entry in the meta of files and of state dicts
# Model semantics: arguments of the backbone that change its outputs, not its
# tensors.
SEMANTICS = ('rel_pos_bias', 'upsample', 'mask_padding')
StateDict = dict[str, Tensor]


def first_few(names: list[str], most: int = 3) -> str:
    """Return `` (a, b, c, ...)``, or an empty string if there are no names."""
    if not names:
        return ''
    dots = ', ...' if len(names) > most else ''
    return f' ({", ".join(map(str, names[:most]))}{dots})'


@dataclass
class ConversionReport:
    """Result of a conversion, tensor by tensor; ``str()`` gives one line.

    Attributes:
        source: Layout of the file.
        semantics: Model semantics (arguments of the backbone) with which the
            weights were trained, as far as they are known.
        matched: Number of tensors used.
        converted: Number of these that were renamed, joined or split.
        interpolated: Bias tables resized to another window.
        added: Names of derived tensors, such as indices.
        dropped: Names the target does not use: indices, unused outputs,
            tables without effect, the head of another task.
        missing: Names that the target has but the file lacks.
        unexpected: Unknown names.
        hrnet: Whether the network is an HRNet.
    """
    source: str
    semantics: dict[str, Any] = field(default_factory=dict)
    matched: int = 0
    converted: int = 0
    interpolated: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    hrnet: bool = False

    def __str__(self) -> str:
        words = [f'{self.source} weights: {self.matched} tensors matched',
                 f'{self.converted} converted']
        for name in ('interpolated', 'added', 'dropped'):
            if getattr(self, name):
                words.append(f'{len(getattr(self, name))} {name}')
        for name in ('missing', 'unexpected'):
            names = getattr(self, name)
            words.append(f'{len(names)} {name}{first_few(names)}')
        return ', '.join(words)


def unwrap(checkpoint: Mapping, key: str | None = None) -> Mapping:
    """Return the state dict of a checkpoint, or the checkpoint if it is one.

    Args:
        checkpoint: Content of a file.
        key: Entry to read, if several hold tensors.

    Raises:
        ValueError: If there is no such entry.
    """
    if key is not None:
        if not isinstance(checkpoint.get(key), Mapping):
            raise ValueError(f'the file has no tensors under the key {key!r}; '
                             f'its keys are{first_few(list(checkpoint), 8)}')
        return checkpoint[key]
    for name in CONTAINERS:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping) and any(
                isinstance(v, (Tensor, Mapping)) for v in inner.values()):
            return unwrap(inner)
    return checkpoint


def strip(state_dict: Mapping) -> tuple[StateDict, list[str]]:
    """Remove wrappers such as ``module.`` from the names.

    ``torch.compile`` inserts its own in the middle of a name.

    Returns:
        The tensors, those of the backbone with the prefix ``backbone.`` or
        none, and the names outside the wrapper.

    Raises:
        ValueError: If there is no backbone, or more than one.
    """
    state_dict = {k.replace('_orig_mod.', ''): v
                  for k, v in state_dict.items()}
    found = roots(state_dict)
    if not found:
        raise ValueError('these are not the weights of an HRFormer or HRNet: '
                         'no tensor is called stage2.0.fuse_layers.*; the '
                         f'names are{first_few(list(state_dict)) or " none"}')
    if len(found) > 1:
        raise ValueError(f'the file has the weights of {len(found)} '
                         f'backbones; choose a prefix out of {found}')
    wrapper = found[0]
    for root in ROOTS:
        if wrapper.endswith(root):
            wrapper = wrapper[:-len(root)]
            break
    tensors = {k: v for k, v in state_dict.items() if isinstance(v, Tensor)}
    inside = OrderedDict((k[len(wrapper):], v) for k, v in tensors.items()
                         if k.startswith(wrapper))
    return inside, [k for k in tensors if not k.startswith(wrapper)]


def reroot(state_dict: StateDict, source: str) -> StateDict:
    """Rename the backbone to the prefix that it has in its layout."""
    layout = LAYOUTS[source]
    root = next(iter(roots(state_dict)), '')
    if root == layout.root:
        return state_dict
    heads = tuple(theirs for ours, theirs in layout.parts
                  if theirs and ours != BACKBONE)
    return OrderedDict(
        (k if k.startswith(heads) else layout.root + k[len(root):], v)
        for k, v in state_dict.items())


def stored_semantics(checkpoint: Mapping) -> dict[str, Any]:
    """Return the model semantics stored in a checkpoint or a state dict."""
    meta = checkpoint.get('meta')
    modules = getattr(unwrap(checkpoint), '_metadata', None) or {}
    ours = meta.get(MARK) if isinstance(meta, Mapping) else None
    found = [ours.get('truths')] if isinstance(ours, Mapping) else []
    found += [entry.get(MARK) for entry in modules.values()]
    for semantics in found:
        if isinstance(semantics, Mapping):
            return {k: semantics[k] for k in SEMANTICS if k in semantics}
    return {}


def semantics_of(source: str, state_dict: StateDict,
                 stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model semantics of weights; stored values take precedence."""
    if is_hrnet(state_dict):
        known = LAYOUTS[source].semantics(hrnet=True)
        if source == 'ours' and any(
                k.startswith('head.final_layer.') for k in state_dict):
            known = PLAIN_HRNET  # MMPose's have the same names and no meta
        return {k: stored.get(k, v) for k, v in known.items()} or {
            k: v for k, v in stored.items() if k in PLAIN_HRNET}
    semantics = dict(LAYOUTS[source].arguments)
    semantics['rel_pos_bias'] = semantics.get('rel_pos_bias', True) and any(
        k.endswith(TABLE) for k in state_dict)
    return {**semantics, **stored}


def joined(key: str, state_dict: StateDict) -> tuple[str, Tensor | None]:
    """Concatenate queries, keys and values into one ``qkv`` tensor.

    Returns:
        The new name and tensor. Other tensors are returned unchanged; for
        keys and values, which are joined with their queries, the tensor is
        ``None``.
    """
    first = key.replace('.k_proj.', '.q_proj.').replace('.v_proj.', '.q_proj.')
    match = Q_PROJ.match(first)
    names = [f'{match[1]}{x}_proj.{match[2]}' for x in 'qkv'] if match else []
    if not match or not all(n in state_dict for n in names):
        return key, state_dict[key]
    if key != first:
        return key, None
    return f'{match[1]}qkv.{match[2]}', torch.cat(
        [state_dict[n] for n in names])


def to_ours(state_dict: StateDict, report: ConversionReport) -> StateDict:
    """Rename to our layout, join q, k and v, and drop derived buffers."""
    layout, out = LAYOUTS[report.source], OrderedDict()
    for key in state_dict:
        if key.endswith(INDEX) or key in layout.derived:
            report.dropped.append(key)
            continue
        joint, value = joined(key, state_dict)
        if value is None:
            continue
        name = rename(joint, layout, to_ours=True)
        if name is None:
            report.unexpected.append(key)
        out[name or key] = value
    adapted = TO_OURS.get(report.source, OrderedDict)(out)
    report.added += [k for k in adapted if k not in out]
    return OrderedDict(adapted)


def from_ours(state_dict: StateDict, to: str,
              report: ConversionReport) -> StateDict:
    """Rename from our layout, split q, k and v, and add derived buffers.

    Tensors that the layout does not have are dropped.
    """
    layout, out = LAYOUTS[to], OrderedDict()
    adapted = FROM_OURS.get(to, OrderedDict)(state_dict)
    report.dropped += [k for k in state_dict if k not in adapted]
    for key, value in adapted.items():
        match = QKV.match(key) if layout.split_qkv else None
        pieces = {key: value}
        if match:  # clones, or a file would store the shared memory thrice
            pieces = {f'{match[1]}{x}_proj.{match[2]}': v.clone()
                      for x, v in zip('qkv', value.chunk(3))}
        for k, v in pieces.items():
            name = rename(k, layout, to_ours=False)
            if name is None:
                report.dropped.append(key)
                continue
            name = layout.wrapper + name
            out[name] = v
            if layout.index and name.endswith(TABLE):
                index = name[:-len(TABLE)] + INDEX
                out[index] = relative_position_index(window_of(v))
                report.added.append(index)
    derived = DERIVED[to](state_dict) if to in DERIVED else {}
    out.update(derived)
    report.added += derived
    return out


def with_zero_tables(state_dict: StateDict, arch: Arch | None,
                     report: ConversionReport) -> StateDict:
    """Add a bias table of zeros, which has no effect, to every attention.

    The official code requires tables.

    Raises:
        ValueError: If the number of heads is not known.
    """
    archs = [arch] if arch else ARCHS.values()
    heads = {c: h for a in archs for c, h in zip(a.channels, a.heads)}
    out = OrderedDict()
    for key, value in state_dict.items():
        out[key] = value
        match = QKV.match(key)
        if match and match[2] == 'weight':
            if value.shape[1] not in heads:
                raise ValueError('the number of heads of branches with '
                                 f'{value.shape[1]} channels is unknown; '
                                 'pass arch')
            out[match[1] + TABLE] = value.new_zeros(13 * 13,
                                                    heads[value.shape[1]])
            report.added.append(match[1] + TABLE)
    return out


def convert(checkpoint: Mapping,
            to: str = 'ours',
            arch: None | str | Arch | Mapping = None,
            prefix: str = '') -> tuple[StateDict, ConversionReport]:
    """Convert a checkpoint to the tensor names of another code base.

    The layout of the checkpoint is recognised from its names.

    Args:
        checkpoint: State dict in any layout, or a checkpoint that contains
            one. It is not changed; tensors that are only renamed share their
            memory. Stored model semantics are kept in our layout.
        to: Target layout, one of
            :data:`~hrformer_mm.checkpoints.keymap.LAYOUTS`.
        arch: Size of the network, which determines the number of heads if
            neither the tensors nor the channels do.
        prefix: Key prefix of the model to convert, if there are several.

    Raises:
        ValueError: If the checkpoint holds no HRFormer or several, or its
            tensors do not fit together.
    """
    stored = stored_semantics(checkpoint)
    tensors, outside = strip({
        k[len(prefix):]: v
        for k, v in unwrap(checkpoint).items()
        if isinstance(k, str) and k.startswith(prefix)
    })
    source = recognise(tensors)
    tensors = reroot(tensors, source)
    report = ConversionReport(
        source, unexpected=outside, hrnet=is_hrnet(tensors))
    report.semantics = semantics_of(source, tensors, stored)
    try:
        out = tensors if source == 'ours' else to_ours(tensors, report)
        out = to_layout(out, to, report, arch)
    except KeyError as error:
        raise ValueError(f'these {source} weights are damaged: they lack '
                         f'{error}') from error
    except (RuntimeError, IndexError) as error:  # torch, about odd shapes
        raise ValueError(f'these {source} weights are damaged: '
                         f'{str(error).splitlines()[0]}') from error
    derived = {*report.added} & {*report.dropped}  # indices of both layouts
    report.added = [k for k in report.added if k not in derived]
    report.dropped = [k for k in report.dropped if k not in derived]
    report.matched = len(out)
    report.converted = sum(k not in tensors for k in out) - len(report.added)
    if to == 'ours':
        metadata = {'backbone': {MARK: dict(report.semantics)}}
        out._metadata = metadata  # type: ignore[attr-defined]
    return out, report


def check_place(state_dict: StateDict, to: str):
    """Raise a ValueError if a layout has no place for such a model."""
    layout, hrnet = LAYOUTS[to], is_hrnet(state_dict)

    def has(prefix: str) -> bool:
        return any(k.startswith(prefix) for k in state_dict)

    if hrnet and layout.hrnet is None or not hrnet and not layout.transformer:
        kind = 'an HRNet' if hrnet else 'an HRFormer'
        raise ValueError(f'these are the weights of {kind}, which the layout '
                         f'{to!r} does not have')
    if layout.needs and not has(layout.needs):
        raise ValueError(f'the layout {to!r} is for models with '
                         f'{layout.needs}*, which these weights lack')
    for name in ('transpose', 'tokenpose', 'prtr'):
        if has(LAYOUTS[name].needs) and to not in ('ours', name):
            raise ValueError(f'the layout {to!r} does not support models of '
                             f"{name!r}; choose {name!r} or 'ours'")


def to_layout(state_dict: StateDict,
              to: str,
              report: ConversionReport,
              arch: None | str | Arch | Mapping = None) -> StateDict:
    """Convert from our layout to another, with the bias tables it needs."""
    check_place(state_dict, to)
    if report.semantics.get('rel_pos_bias', True) is False:
        tables = [k for k in state_dict if k.endswith(TABLE)]
        if to.startswith('mmpose'):
            report.dropped += tables
            state_dict = OrderedDict(
                (k, v) for k, v in state_dict.items() if k not in tables)
        elif LAYOUTS[to].split_qkv and not tables:
            state_dict = with_zero_tables(
                state_dict, get_arch(arch) if arch else None, report)
    return state_dict if to == 'ours' else from_ours(state_dict, to, report)


def window_of(table: Tensor) -> int:
    """Return the window size of a bias table [(2w-1)**2, heads].

    Raises:
        ValueError: If no window has a table of this length.
    """
    rows = table.shape[0] if table.ndim == 2 else 0
    side = isqrt(rows)
    if side * side != rows or side % 2 == 0:
        raise ValueError('a relative position bias table of shape '
                         f'{tuple(table.shape)} fits no window')
    return (side + 1) // 2


def interpolate_table(table: Tensor, window_size: int) -> Tensor:
    """Interpolate a bias table [(2w-1)**2, heads] to another window size.

    Interpolation is bilinear on the grid of relative positions, as in the
    official segmentation code for windows of 13 and 15.
    """
    old, new = 2 * window_of(table) - 1, 2 * window_size - 1
    grid = table.t().reshape(1, -1, old, old).float()
    grid = F.interpolate(grid, (new, new), mode='bilinear')
    return grid.flatten(2)[0].t().contiguous().to(table.dtype)
