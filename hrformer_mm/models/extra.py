# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Translate the arguments of MMPose's HRFormer: ``extra``, ``norm_cfg`` etc.

Unsupported values raise an error, as in MMPose, instead of being ignored.
"""
from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import Any

from mmengine.logging import print_log
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Our name: names of MMPose's and the official configs in a stage, default.
EXTRA_WORDS: dict[str, tuple[Sequence[str], int | None]] = dict(
    channels=(('num_channels', ), None),
    heads=(('num_heads', ), None),
    blocks=(('num_blocks', ), None),
    windows=(('window_sizes', 'num_window_sizes'), 7),
    mlp_ratios=(('mlp_ratios', 'num_mlp_ratios'), 4))
BLOCK = 'HRFORMERBLOCK'  # blocks of the stages after the first
STAGE1 = dict(num_branches=1, block='BOTTLENECK', num_blocks=(2, ),
              num_channels=(64, ))  # yapf: disable
BATCH_NORMS = ('BN', 'BN2d', 'SyncBN')
# Options of a batch norm that must have their default.
NORM_DEFAULTS = dict(affine=True, track_running_stats=True)


def whole(ratio: float) -> int:
    """Return a ratio of the feed-forward, which configs may write as 4.0.

    Raises:
        ValueError: If it is no whole number.
    """
    if ratio != int(ratio):
        raise ValueError('mlp_ratio must be a whole number, as hidden channels'
                         f' are a multiple of the input\'s; got {ratio}')
    return int(ratio)


def is_extra(value: Any) -> bool:
    """Whether an argument is MMPose's ``extra``."""
    return isinstance(value, Mapping) and any(
        f'stage{n}' in value for n in range(1, 5))


def check_stage(stage: Mapping, n: int):
    """Raise ValueError if a stage is not one of MMPose's HRFormer.

    Args:
        stage: Dict of the stage in ``extra``.
        n: Number of the stage, 2 to 4, and of its branches.
    """
    where = f'extra.stage{n}'
    kind = stage.get('block', BLOCK)
    if kind != BLOCK:
        raise ValueError(
            f'{where}.block must be {BLOCK!r}, got {kind!r}; to replace the '
            'extra of another backbone, write backbone=dict(_delete_=True, '
            '...)')
    if stage.get('num_branches', n) != n:
        raise ValueError(f'{where}.num_branches must be {n}, got '
                         f"{stage['num_branches']!r}")
    for names, _ in EXTRA_WORDS.values():
        for name in names:
            value = stage.get(name, (None, ) * n)
            if not isinstance(value, Sequence) or len(value) != n:
                raise ValueError(f'{where}.{name} must have {n} values, one '
                                 f'for each branch, got {value!r}')
    if 'num_modules' not in stage:
        raise ValueError(f'{where} must have num_modules')


def check_stage1(stage: Mapping):
    """Raise ValueError if the first stage is not the supported one."""
    for name, wanted in STAGE1.items():
        value = stage.get(name, wanted)
        value = tuple(value) if isinstance(value, list) else value
        if value != wanted:
            raise ValueError(f'extra.stage1.{name} must be {wanted!r}, got '
                             f'{value!r}')


def branches(stages: Sequence[Mapping], names: Sequence[str],
             default: int | None) -> tuple[int, ...]:
    """Return a field of ``extra`` for the four branches, equal in all stages.

    Raises:
        ValueError: If it is missing or a stage differs from the last.
    """
    values = []
    for n, stage in enumerate(stages, start=2):
        found = [stage[name] for name in names if name in stage]
        if found:
            values.append(tuple(found[0]))
        elif default is not None:
            values.append((default, ) * n)
        else:
            raise ValueError(f'extra.stage{n} must have {names[0]}')
    for n, value in enumerate(values, start=2):
        if value != values[-1][:n]:
            raise ValueError(
                f'{names[0]} of a branch must be the same in all stages, got '
                f'{value} in stage{n} and {values[-1]} in stage4')
    return values[-1]


def same(values: Sequence, what: str):
    """Return the value of a per-branch list whose entries must be equal."""
    if len(set(values)) != 1:
        raise ValueError(f'{what} must be equal in all branches, got '
                         f'{list(values)}')
    return values[0]


def translate_upsample(cfg: Mapping) -> str:
    """Return our name for ``extra.upsample``.

    Raises:
        ValueError: If the mode is not supported.
    """
    mode, aligned = cfg.get('mode', 'bilinear'), cfg.get('align_corners')
    if mode == 'bilinear':
        return 'bilinear_aligned' if aligned else 'bilinear'
    if mode == 'nearest' and not aligned:
        return 'nearest'
    raise ValueError(f"extra.upsample must have mode 'bilinear' or 'nearest', "
                     f'the latter without align_corners, got {dict(cfg)}')


def translate_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Translate ``extra`` to the arguments of our HRFormer.

    Args:
        extra: Dict as in the configs of MMPose 1.x; it is not changed.

    Raises:
        ValueError: If a stage is missing or unsupported.
    """
    missing = [s for s in ('stage2', 'stage3', 'stage4') if s not in extra]
    if missing:
        raise ValueError(f'extra must describe stage2, stage3 and stage4; '
                         f'missing {missing}')
    stages = [extra[s] for s in ('stage2', 'stage3', 'stage4')]
    check_stage1(extra.get('stage1', {}))
    for n, stage in enumerate(stages, start=2):
        check_stage(stage, n)
    words = {
        key: branches(stages, names, default)
        for key, (names, default) in EXTRA_WORDS.items()
    }
    arch = dict(
        channels=words['channels'],
        heads=words['heads'],
        modules=tuple(s['num_modules'] for s in stages),
        blocks=same(words['blocks'], 'num_blocks'),
        mlp_ratio=whole(same(words['mlp_ratios'], 'mlp_ratios')))
    several = stages[-1].get('multiscale_output')
    args = dict(
        arch=arch,
        out_indices=(0, 1, 2, 3) if several else (0, ),
        window_size=words['windows'],
        drop_path_rate=extra.get('drop_path_rate', 0.),
        rel_pos_bias=extra.get('with_rpe', True),
        mask_padding=extra.get('with_pad_mask', False),
        upsample=translate_upsample(extra.get('upsample', {})))
    print_log(
        f'HRFormer: extra was read as {args}; these are the arguments to '
        'write in new configs', 'current')
    return args


def check_conv_cfg(conv_cfg: Mapping | None):
    """Raise ValueError for convolutions other than the plain ones."""
    kind = (conv_cfg or {}).get('type')
    if kind not in (None, 'Conv2d', 'Conv', nn.Conv2d):
        raise ValueError('conv_cfg must be None or dict(type=\'Conv2d\'), '
                         f'got {conv_cfg!r}')


def apply_norm_cfg(model: nn.Module, norm_cfg: Mapping):
    """Apply the options of ``norm_cfg`` to the batch norms of a model.

    Raises:
        ValueError: If the type or an option is not supported.
    """
    options = dict(norm_cfg)
    kind = options.pop('type', 'BN')
    if kind not in BATCH_NORMS:
        raise ValueError(f'norm_cfg.type must be one of {list(BATCH_NORMS)}, '
                         f'got {kind!r}')
    for name, wanted in NORM_DEFAULTS.items():
        value = options.pop(name, wanted)
        if value != wanted:
            raise ValueError(f'norm_cfg.{name} must be {wanted}, got {value}')
    trains = options.pop('requires_grad', True)
    unknown = sorted(set(options) - {'eps', 'momentum'})
    if unknown:
        raise ValueError(f'norm_cfg may have type, requires_grad, eps and '
                         f'momentum, got {unknown[0]!r}')
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eps = options.get('eps', module.eps)
            module.momentum = options.get('momentum', module.momentum)
            module.requires_grad_(trains)
    if kind == 'SyncBN':
        nn.SyncBatchNorm.convert_sync_batchnorm(model)


def apply_transformer_norm_cfg(model: nn.Module, norm_cfg: Mapping):
    """Apply the options of ``norm_cfg`` to the layer norms of a model.

    Raises:
        ValueError: If the type or an option is not supported.
    """
    options = dict(norm_cfg)
    kind = options.pop('type', 'LN')
    trains = options.pop('requires_grad', True)
    if kind != 'LN' or set(options) - {'eps'}:
        raise ValueError("transformer_norm_cfg must be dict(type='LN', "
                         f'eps=..., requires_grad=...), got {norm_cfg!r}')
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = options.get('eps', module.eps)
            module.requires_grad_(trains)


def translate_pretrained(pretrained: str | None,
                         init_cfg: Any) -> Any:
    """Translate MMSegmentation's ``pretrained`` to an ``init_cfg``.

    Names of OpenMMLab's and torchvision's model zoos, which have no HRFormer,
    belong to the replaced backbone and are ignored with a warning.

    Raises:
        ValueError: If there is also an ``init_cfg``.
    """
    if pretrained is None:
        return init_cfg
    if str(pretrained).startswith(('open-mmlab://', 'torchvision://',
                                   'mmcls://')):  # yapf: disable
        print_log(
            f'HRFormer: pretrained={pretrained!r} is of another backbone and '
            'is ignored; set pretrained=None in the model, or '
            "init_cfg=dict(type='Pretrained', checkpoint=...) in the backbone",
            'current', WARNING)
        return init_cfg
    if init_cfg:
        raise ValueError('init_cfg and pretrained cannot be given at the same '
                         f'time, got {init_cfg!r} and {pretrained!r}')
    return dict(type='Pretrained', checkpoint=pretrained)
