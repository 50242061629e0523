# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Sizes of HRFormer (Table 2 of the paper), and argument checks."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

SWITCH = (True, False)
CHOICES: dict[str, tuple] = dict(
    ffn=('dwconv', 'nodw', 'mlp'),
    attention=('window', 'shifted'),
    block=('transformer', 'conv'),
    upsample=('nearest', 'bilinear', 'bilinear_aligned'),
    with_cp=(False, 'ffn', True),
    rel_pos_bias=SWITCH,
    mask_padding=SWITCH,
    align_corners=SWITCH,
    dw_conv=SWITCH)
RATES = ('drop_path_rate', 'dropout_ratio')  # other arguments are counts


def is_count(value: Any) -> bool:
    """Whether a value is a positive integer, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(
        value, bool) and int(value) > 0


def are_counts(values: Any, length: int | None = None) -> bool:
    """Whether values are positive integers, ``length`` or at least one."""
    return isinstance(values, Sequence) and all(map(is_count, values)) and len(
        values) == (length or len(values) or 1)


def check(name: str, value: Any, is_valid: bool, valid: str):
    """Raise a ValueError that names the valid values if one is invalid."""
    if not is_valid:
        raise ValueError(f'{name} must be {valid}, got {value!r}')


def check_arguments(**values: Any) -> list[Any]:
    """Return arguments as their standard values, such as True for 1.

    They are choices, rates below 1, or positive integers.
    """
    for name, value in values.items():
        if name in CHOICES:
            choices = CHOICES[name]
            check(name, value, value in choices, f'one of {list(choices)}')
            values[name] = choices[choices.index(value)]
        elif name in RATES:
            check(name, value,
                  isinstance(value, Real) and 0 <= float(value) < 1,
                  'in [0, 1)')
            values[name] = float(value)
        else:
            check(name, value, is_count(value), 'a positive integer')
    return list(values.values())


def check_windows(window_size: int | Sequence[int]) -> tuple[int, ...]:
    """Return one window size for each of the four branches."""
    sizes = (
        tuple(window_size) if isinstance(window_size, Sequence) else
        (window_size, ) * 4)
    check('window_size', window_size, are_counts(sizes, 4),
          'a positive integer or four of them, one per branch')
    return sizes


def check_out_indices(out_indices: int | Sequence[int],
                      branches: int = 4) -> tuple[int, ...]:
    """Return the branches to output; negative numbers count from the last."""
    given: Sequence[Any] = (
        out_indices if isinstance(out_indices, Sequence) else [out_indices])
    outs = [
        int(i) % branches for i in given if isinstance(i, Integral)
        and not isinstance(i, bool) and -branches <= int(i) < branches
    ]
    check('out_indices', out_indices,
          len(given) == len(outs) > 0 and outs == sorted(set(outs)),
          f'distinct branches out of {tuple(range(branches))} in order')
    return tuple(outs)


@dataclass(frozen=True)
class Arch:
    """Layout of one size of HRFormer (Table 2 of the paper).

    With three branches and two numbers of ``modules`` the network ends after
    stage 3, like the stem of TransPose and TokenPose.
    """
    channels: tuple[int, ...]  # of the four branches, finest first
    heads: tuple[int, ...]  # of each branch
    modules: tuple[int, ...]  # multi-branch modules in stages 2, 3, 4
    blocks: int = 2  # blocks of a branch in each module
    mlp_ratio: int = 4  # hidden channels of the FFN, as a multiple

    def __post_init__(self):
        n = 3 if are_counts(self.channels, 3) else 4
        for name, length in dict(channels=n, heads=n, modules=n - 1).items():
            value = getattr(self, name)
            check(f'arch.{name}', value, are_counts(value, length),
                  f'{length} positive integers')
        for name in ('blocks', 'mlp_ratio'):
            value = getattr(self, name)
            check(f'arch.{name}', value, is_count(value),
                  'an integer of at least 1')
        fits = not any(c % h for c, h in zip(self.channels, self.heads))
        check('arch.channels', tuple(self.channels), fits,
              f'divisible by arch.heads {tuple(self.heads)}')


ARCHS = {
    #               channels             heads          modules
    'tiny':  Arch((18, 36, 72, 144),   (1, 2, 4, 8),  (1, 3, 2)),
    'small': Arch((32, 64, 128, 256),  (1, 2, 4, 8),  (1, 4, 2)),
    'base':  Arch((78, 156, 312, 624), (2, 4, 8, 16), (1, 4, 2)),
}  # yapf: disable


def get_arch(arch: str | Arch | Mapping) -> Arch:
    """Get a size by name, or create one from a mapping of its fields.

    Raises:
        ValueError: If the name or a field is unknown, a field is missing, or
            values are inconsistent.
    """
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, str) and arch in ARCHS:
        return ARCHS[arch]
    fields = list(Arch.__dataclass_fields__)
    given: Mapping = arch if isinstance(arch, Mapping) else {}
    check('arch', arch, arch is given, f'one of {sorted(ARCHS)} or a dict')
    unknown = [k for k in given if k not in fields]
    missing = [k for k in ('channels', 'heads', 'modules') if k not in given]
    if unknown or missing:
        raise ValueError(f'arch has the fields {fields}; unknown {unknown}, '
                         f'missing {missing}')
    values: Any = {
        k: tuple(v) if isinstance(v, Sequence) else v
        for k, v in given.items()
    }
    return Arch(**values)


def drop_path_rates(rate: float, arch: Arch) -> list[list[float]]:
    """Compute the stochastic depth rate of each block of each module.

    It grows linearly with depth from 0 to ``rate``, and is the same in all
    branches of a module.
    """
    last = max(sum(arch.modules) * arch.blocks - 1, 1)
    return [[rate * (m * arch.blocks + i) / last for i in range(arch.blocks)]
            for m in range(sum(arch.modules))]
