# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The sizes of HRFormer as data (Table 2), and checks of arguments."""
from dataclasses import dataclass
from typing import List, Mapping, Sequence, Tuple, Union

FFN_TYPES = ('dwconv', 'nodw', 'mlp')
ATTENTION_TYPES = ('window', 'shifted')
BLOCK_TYPES = ('transformer', 'conv')
UPSAMPLE_MODES = ('nearest', 'bilinear')
CHECKPOINTING = (False, 'ffn', True)


@dataclass(frozen=True)
class Arch:
    """What tells one HRFormer size from another (Table 2 of the paper).

    With three branches there are two ``modules``: a network that ends after
    stage 3, which others (TransPose, TokenPose) build upon.
    """
    channels: Tuple[int, ...]  # of the four branches, finest first
    heads: Tuple[int, ...]  # of each branch
    modules: Tuple[int, ...]  # multi-branch modules in stages 2, 3, 4
    blocks: int = 2  # blocks of a branch in each module
    mlp_ratio: int = 4  # hidden channels of the FFN, as a multiple

    def __post_init__(self):
        branches = 3 if len(self.channels) == 3 else 4
        for name, length in (('channels', branches), ('heads', branches),
                             ('modules', branches - 1)):
            value = getattr(self, name)
            if len(value) != length or min(value) < 1:
                raise ValueError(f'arch.{name} must be {length} positive '
                                 f'integers, got {tuple(value)}')
        for c, h in zip(self.channels, self.heads):
            if c % h:
                raise ValueError(
                    'arch.channels must be divisible by arch.heads, got '
                    f'{tuple(self.channels)} and {tuple(self.heads)}')
        if self.blocks < 1 or self.mlp_ratio < 1:
            raise ValueError('arch.blocks and arch.mlp_ratio must be at least '
                             f'1, got {self.blocks} and {self.mlp_ratio}')


ARCHS = {
    #               channels             heads          modules
    'tiny':  Arch((18, 36, 72, 144),   (1, 2, 4, 8),  (1, 3, 2)),
    'small': Arch((32, 64, 128, 256),  (1, 2, 4, 8),  (1, 4, 2)),
    'base':  Arch((78, 156, 312, 624), (2, 4, 8, 16), (1, 4, 2)),
}  # yapf: disable


def get_arch(arch: Union[str, Arch, Mapping]) -> Arch:
    """Look up a size by name, or make one of a mapping of its fields.

    Raises:
        ValueError: For an unknown name, an unknown or missing field, or
            values that do not fit together.
    """
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, Mapping):
        fields = Arch.__dataclass_fields__
        unknown = sorted(set(arch) - set(fields))
        missing = sorted({'channels', 'heads', 'modules'} - set(arch))
        if unknown or missing:
            raise ValueError(f'arch has the fields {list(fields)}; unknown '
                             f'{unknown}, missing {missing}')
        return Arch(**{
            k: v if isinstance(v, int) else tuple(v)
            for k, v in arch.items()
        })
    if arch not in ARCHS:
        raise ValueError(
            f'arch must be one of {sorted(ARCHS)} or a dict, got {arch!r}')
    return ARCHS[arch]


def check_choice(name: str, value, choices: Sequence):
    """Raise a ValueError that names the choices if value is not of them."""
    if value not in choices:
        raise ValueError(f'{name} must be one of {list(choices)}, '
                         f'got {value!r}')
    return value


def drop_path_rates(rate: float, arch: Arch) -> List[List[float]]:
    """Stochastic depth of each block of each module, from 0 up to ``rate``.

    It grows linearly with depth and is shared by all branches of a module.
    """
    last = max(sum(arch.modules) * arch.blocks - 1, 1)
    return [[rate * (m * arch.blocks + i) / last for i in range(arch.blocks)]
            for m in range(sum(arch.modules))]


def check_windows(window_size: Union[int, Sequence[int]]) -> Tuple[int, ...]:
    """One window size for each of the four branches."""
    sizes = (
        tuple(window_size) if isinstance(window_size, Sequence) else
        (window_size, ) * 4)
    if len(sizes) != 4 or not all(
            isinstance(s, int) and s >= 1 for s in sizes):
        raise ValueError('window_size must be a positive integer or four of '
                         f'them, one per branch, got {window_size!r}')
    return sizes


def check_out_indices(out_indices: Sequence[int],
                      branches: int = 4) -> Tuple[int, ...]:
    """Branches to give: distinct, in order, out of those that there are."""
    outs = tuple(out_indices)
    if not outs or any(i not in range(branches) for i in outs) or \
            list(outs) != sorted(set(outs)):
        raise ValueError('out_indices must be distinct branches out of '
                         f'{tuple(range(branches))} in order, '
                         f'got {out_indices!r}')
    return outs
