# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The sizes of HRFormer as data (Table 2), and checks of arguments."""
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

FFN_TYPES = ('dwconv', 'nodw', 'mlp')
ATTENTION_TYPES = ('window', 'shifted')
BLOCK_TYPES = ('transformer', 'conv')
UPSAMPLE_MODES = ('nearest', 'bilinear', 'bilinear_aligned')
CHECKPOINTING = (False, 'ffn', True)
SWITCH = (True, False)


def is_count(value: Any) -> bool:
    """Whether a value is a positive integer, of Python's or NumPy's."""
    return isinstance(value, Integral) and not isinstance(
        value, bool) and int(value) >= 1


def are_counts(values: Any, length: Optional[int] = None) -> bool:
    """Whether there are so many, or any number, of positive integers."""
    return isinstance(values, Sequence) and len(values) == (
        length or max(len(values), 1)) and all(map(is_count, values))


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
        branches = 3 if are_counts(self.channels, 3) else 4
        for name, length in (('channels', branches), ('heads', branches),
                             ('modules', branches - 1)):
            value = getattr(self, name)
            if not are_counts(value, length):
                raise ValueError(f'arch.{name} must be {length} positive '
                                 f'integers, got {value!r}')
        for c, h in zip(self.channels, self.heads):
            if c % h:
                raise ValueError(
                    'arch.channels must be divisible by arch.heads, got '
                    f'{tuple(self.channels)} and {tuple(self.heads)}')
        if not is_count(self.blocks) or not is_count(self.mlp_ratio):
            raise ValueError('arch.blocks and arch.mlp_ratio must be integers '
                             f'of at least 1, got {self.blocks!r} and '
                             f'{self.mlp_ratio!r}')


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
        values: Dict[str, Any] = {
            k: tuple(v) if isinstance(v, Sequence) else v
            for k, v in arch.items()
        }
        return Arch(**values)
    if not isinstance(arch, str) or arch not in ARCHS:
        raise ValueError(
            f'arch must be one of {sorted(ARCHS)} or a dict, got {arch!r}')
    return ARCHS[arch]


def check_choice(name: str, value, choices: Sequence):
    """Raise a ValueError that names the choices if value is not of them.

    Gives the choice itself: 1 stands for True.
    """
    if value not in choices:
        raise ValueError(f'{name} must be one of {list(choices)}, '
                         f'got {value!r}')
    return choices[choices.index(value)]


def check_counts(**values: Any):
    """Raise a ValueError unless all are positive integers."""
    for name, value in values.items():
        if not is_count(value):
            raise ValueError(f'{name} must be a positive integer, got '
                             f'{value!r}')


def check_rate(name: str, value: Any) -> float:
    """Raise a ValueError if value is no share of what may be dropped."""
    if not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ValueError(f'{name} must be in [0, 1), got {value!r}')
    return float(value)


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
    if not are_counts(sizes, 4):
        raise ValueError('window_size must be a positive integer or four of '
                         f'them, one per branch, got {window_size!r}')
    return sizes


def check_out_indices(out_indices: Union[int, Sequence[int]],
                      branches: int = 4) -> Tuple[int, ...]:
    """Return the branches to output: distinct, in order, counted from 0.

    One number stands for one branch; negative ones count from the end.
    """
    given: Tuple[Any, ...] = (
        (out_indices, ) if isinstance(out_indices, Integral) else
        tuple(out_indices) if isinstance(out_indices, Sequence) else ())
    outs: Tuple[Any, ...] = tuple(
        i + branches if isinstance(i, Integral) and i < 0 else i
        for i in given)
    if not outs or any(not isinstance(i, Integral) or isinstance(i, bool)
                       or i not in range(branches) for i in outs) or \
            list(outs) != sorted(set(outs)):
        raise ValueError('out_indices must be distinct branches out of '
                         f'{tuple(range(branches))} in order, '
                         f'got {out_indices!r}')
    return tuple(map(int, outs))
