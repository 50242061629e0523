# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""HRFormer as models of timm.

Importing this module, or :mod:`hrformer_mm.timm`, registers ``hrformer_tiny``,
``hrformer_small`` and ``hrformer_base``::

    import hrformer_mm.timm
    import timm

    model = timm.create_model('hrformer_small', num_classes=10)
    maps = timm.create_model('hrformer_small', features_only=True)(images)

The network is that of the configs in ``configs/cls``, with their tensor names.
Works with timm 0.9.2 and newer.
"""
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import convert, find_file, read_checkpoint
from .checkpoints.keymap import BACKBONE, task_of
from .checkpoints.loading import comparable, inside, match_model, replace
from .core.arch import check_out_indices
from .core.blocks import FFN, Block, Residual
from .core.cls_head import OUT_CHANNELS, RepresentationHead
from .core.hrformer import HRFormer
from .registry import install_line

try:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.layers import ClassifierHead
    from timm.models import (
        FeatureInfo,
        build_model_with_cfg,
        generate_default_cfgs,
        load_pretrained,
        register_model,
        register_notrace_module,
        resolve_pretrained_cfg,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        f'{__name__} needs {error.name}, which is not installed: '
        f'{install_line("timm")}') from error

Indices = int | Sequence[int] | None
HEAD_ARGUMENTS: Any = ('num_classes', 'global_pool', 'drop_rate')
BIAS_TABLE = 'relative_position_bias_table'

# Sizes of maps and fast paths of CPUs are unknown to symbolic tracing.
for leaf in (HRFormer, RepresentationHead):
    register_notrace_module(leaf)


def take_indices(indices: Indices, count: int = 4) -> tuple[int, ...]:
    """Return the branches that timm's ``indices`` select.

    Args:
        indices: ``None`` for all, a number for the last ones, or branches;
            negative ones count from the last.
        count: Number of branches.

    Raises:
        ValueError: If a branch does not exist, or they are not in order.
    """
    if indices is None:
        indices = count
    if isinstance(indices, int):
        if not 0 < indices <= count:
            raise ValueError('the number of maps to output must be in '
                             f'1..{count}, got {indices}')
        indices = range(count - indices, count)
    return check_out_indices(tuple(indices), count)


def describe_maps(channels: Sequence[int]) -> list[dict[str, Any]]:
    """Return timm's description of the map of each branch."""
    return [
        dict(num_chs=c, reduction=4 * 2**i, module=f'maps.{i}')
        for i, c in enumerate(channels)
    ]


class HRFormerBase(nn.Module):
    """Methods that the classifier and the feature extractor share.

    Args:
        arch: Size of the network, see :class:`hrformer_mm.core.HRFormer`.
        in_chans: Number of channels of the image.
        img_size: Ignored, since any size is accepted.
        output_stride: Must be 32.
        **options: See :class:`hrformer_mm.core.HRFormer`.
    """

    def __init__(self,
                 arch: str,
                 in_chans: int = 3,
                 img_size: Any = None,
                 output_stride: int = 32,
                 **options: Any):
        super().__init__()
        if output_stride != 32:
            raise ValueError('output_stride of HRFormer must be 32, got '
                             f'{output_stride}: its finest map has stride 4')
        self.in_chans = in_chans
        self.backbone = HRFormer(arch, in_chans, **options)
        for hook in (rename_tensors, match_model):
            self._register_load_state_dict_pre_hook(hook, with_module=True)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True):
        """Recompute the blocks in the backward pass to save memory."""
        for module in self.backbone.modules():
            if isinstance(module, (Block, Residual)):
                module.with_cp = enable
            elif isinstance(module, FFN):
                module.with_cp = False  # its block is recomputed
        self.backbone.with_cp = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Return the position bias tables, as timm does for Swin."""
        return {n for n, _ in self.named_parameters() if BIAS_TABLE in n}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns that group parameters by depth.

        Fusion and transitions belong to the blocks before them.
        """
        if coarse:
            stages: Any = r'^backbone\.(?:layer|stage|transition)(\d)'
        else:
            arch = self.backbone.arch
            last = arch.blocks - 1
            stages = [
                (r'^backbone\.(?:layer|transition)(1)\.', (0, 0)),
                (r'^backbone\.stage(\d)\.(\d+)\.branches\.\d\.(\d+)', None),
                (r'^backbone\.stage(\d)\.(\d+)\.fuse_layers', (last, )),
                *((rf'^backbone\.transition({i + 2})\.', (modules - 1, last))
                  for i, modules in enumerate(arch.modules[:-1]))]
        return dict(stem=r'^backbone\.(?:conv|bn)\d', blocks=stages)


class HRFormerClassifier(HRFormerBase):
    """HRFormer with the representation head and a linear classifier.

    Args:
        arch: See :class:`HRFormerBase`.
        num_classes: Number of classes; 0 removes the classifier.
        global_pool: Pooling, as in timm; ``''`` keeps the map.
        drop_rate: Dropout before the classifier.
        **options: See :class:`HRFormerBase`.
    """

    def __init__(self,
                 arch: str,
                 num_classes: int = 1000,
                 global_pool: str = 'avg',
                 drop_rate: float = 0.,
                 **options: Any):
        super().__init__(arch, **options)
        channels = self.backbone.arch.channels
        self.num_classes, self.num_features = num_classes, OUT_CHANNELS
        self.feature_info = describe_maps(channels)
        # Name the maps, for timm's extraction by hooks and by torch.fx.
        self.maps = nn.ModuleList(nn.Identity() for _ in channels)
        self.neck: nn.Module | None = RepresentationHead(channels)
        self.head = ClassifierHead(OUT_CHANNELS, num_classes, global_pool,
                                   drop_rate)

    @property
    def head_hidden_size(self) -> int:
        """Number of features before the classifier."""
        return OUT_CHANNELS * self.head.global_pool.feat_mult()

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self,
                         num_classes: int,
                         global_pool: str | None = None):
        """Replace the classifier, and the pooling if it is given."""
        self.num_classes = num_classes
        device = next(self.parameters()).device
        self.head.reset(num_classes, global_pool)
        self.head.to(device)

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Return the maps of the branches, finest first."""
        found = self.backbone(x)
        return [self.maps[i](found[at])
                for at, i in enumerate(self.backbone.out_indices)]

    def aggregate(self, maps: list[Tensor]) -> Any:
        return maps if self.neck is None else self.neck(maps)

    def forward_features(self, x: Tensor) -> Any:
        """Return the map before pooling, [B, 2048, H/32, W/32]."""
        return self.aggregate(self.forward_maps(x))

    def forward_head(self, x: Any, pre_logits: bool = False) -> Any:
        if self.neck is None:  # pruned
            return x
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Any:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
            self,
            x: Tensor,
            indices: Indices = None,
            norm: bool = False,
            stop_early: bool = False,
            output_fmt: str = 'NCHW',
            intermediates_only: bool = False
    ) -> list[Tensor] | tuple[Any, list[Tensor]]:
        """Return the features and the maps of branches.

        Args:
            x: Images.
            indices: Branches, see :func:`take_indices`.
            norm: Ignored, since there is no final norm.
            stop_early: Ignored, since branches are computed together.
            output_fmt: Must be ``'NCHW'``.
            intermediates_only: Return the maps only.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        taken = take_indices(indices, len(self.maps))
        maps = self.forward_maps(x)
        found = [maps[self.backbone.out_indices.index(i)] for i in taken]
        return found if intermediates_only else (self.aggregate(maps), found)

    def prune_intermediate_layers(self,
                                  indices: Indices = 1,
                                  prune_norm: bool = False,
                                  prune_head: bool = True) -> list[int]:
        """Remove what the maps of some branches do not need.

        Returns:
            The branches that are kept.
        """
        taken = take_indices(indices, len(self.maps))
        if prune_head:
            self.neck = None
            self.reset_classifier(0, '')
            fuse: Any = self.backbone.stage4[-1].fuse_layers
            for i in {*self.backbone.out_indices} - {*taken}:
                del fuse[str(i)]
            self.backbone.out_indices = taken
            self.backbone.out_channels = [
                self.backbone.arch.channels[i] for i in taken]
        return list(taken)


class HRFormerFeatures(HRFormerBase):
    """HRFormer that returns the maps of branches, for ``features_only``.

    Args:
        arch: See :class:`HRFormerBase`.
        out_indices: Branches, see :func:`take_indices`.
        **options: See :class:`HRFormerBase`.
    """

    def __init__(self, arch: str, out_indices: Indices = None, **options: Any):
        taken = take_indices(out_indices)
        super().__init__(arch, out_indices=taken, **options)
        self.feature_info = FeatureInfo(
            describe_maps(self.backbone.arch.channels), taken)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.backbone(x))


def convert_for(model: HRFormerBase, checkpoint: Mapping) -> dict[str, Any]:
    """Convert a checkpoint; warn if it was trained with other semantics."""
    tensors, report = convert(checkpoint)
    # A backbone alone is one of ImageNet.
    names = comparable(task_of(tensors) or 'cls', None)
    wrong = ', '.join(
        f'{k}={report.semantics[k]!r}' for k in names
        if report.semantics.get(k, getattr(model.backbone, k)) != getattr(
            model.backbone, k))
    if wrong:
        warnings.warn(f'the weights were trained with {wrong}: pass it to '
                      'timm.create_model, or outputs will differ')
    return tensors


def rename_tensors(model: HRFormerBase, state_dict: dict[str, Any],
                   prefix: str, *args: Any):
    """Rename the tensors of other code bases (load hook of a model)."""
    found, own = inside(state_dict, prefix), model.state_dict()
    if not all(name in own for name in found):
        replace(state_dict, prefix, convert_for(model, found))


def to_own_names(checkpoint: Mapping, model: HRFormerBase) -> dict[str, Any]:
    """Convert a checkpoint of any layout to the tensors of a model.

    Raises:
        ValueError: If it is not the checkpoint of an HRFormer, or has no
            tensors for the classifier that the model shares with it.
    """
    tensors, own = convert_for(model, checkpoint), model.state_dict()
    missing = [k for k in own if not k.startswith(BACKBONE)
               and k not in tensors]
    if missing and getattr(model, 'num_classes', 0) == 1000:
        raise ValueError(
            f'this checkpoint has the backbone only, so that the 1000 classes '
            f'would be random ({len(missing)} tensors are missing): pass '
            'num_classes=N to fine-tune, or features_only=True')
    if missing and getattr(model, 'neck', None) is not None:
        warnings.warn('this checkpoint has the backbone only: the '
                      'representation head of the model is random')
    return OrderedDict((k, v) for k, v in tensors.items()
                       if k in own or k.startswith(BACKBONE))


def load_imagenet(model: HRFormerBase, cfg: dict[str, Any]):
    """Load the pretrained weights that a config of timm names.

    Files and URLs go through :func:`hrformer_mm.checkpoints.find_file`; the
    hub of Hugging Face and folders are left to timm.
    """
    source = cfg.get('url') or cfg.get('file')
    if 'source' not in cfg and not cfg.get('state_dict') and source:
        try:
            path = find_file(source)
        except FileNotFoundError as error:
            text = str(error).partition(', or train from scratch')[0]
            raise FileNotFoundError(f'{text}, or pass pretrained=False'
                                    ) from None
        cfg = dict(cfg, state_dict=dict(read_checkpoint(path)))
    load_pretrained(
        model,
        cfg,
        num_classes=getattr(model, 'num_classes', 0),
        in_chans=model.in_chans,
        filter_fn=to_own_names,
        strict=False)  # the load hook is strict about the backbone


def builder(arch: str, cls: Callable[..., HRFormerBase],
            cfg: dict[str, Any] | None) -> Callable[..., HRFormerBase]:
    """Return a function that builds a model and loads its weights."""

    def build(device: Any = None, dtype: Any = None,
              **kwargs: Any) -> HRFormerBase:
        model = cls(arch, **kwargs)
        if cfg is not None:
            load_imagenet(model, cfg)
        return model.to(device=device, dtype=dtype)

    return build


def create(variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """Build a model by the arguments of :func:`timm.create_model`."""
    arch = variant.partition('_')[2]
    cfg = None
    if pretrained:
        cfg = resolve_pretrained_cfg(
            variant, kwargs.get('pretrained_cfg'),
            kwargs.get('pretrained_cfg_overlay')).to_dict()
    extractor = dict(kwargs.pop('feature_cfg', None) or {})
    if 'feature_cls' in kwargs:
        extractor['feature_cls'] = kwargs.pop('feature_cls')
    if not kwargs.pop('features_only', False):
        return build_model_with_cfg(
            builder(arch, HRFormerClassifier, cfg), variant, False, **kwargs)
    indices = kwargs.pop('out_indices', extractor.pop('out_indices', None))
    if 'feature_cls' in extractor:  # an extractor of timm
        if extractor['feature_cls'] == 'hook':
            extractor.setdefault('no_rewrite', True)
        return build_model_with_cfg(
            builder(arch, HRFormerClassifier, cfg), variant, False,
            features_only=True,
            feature_cfg=dict(extractor, out_indices=take_indices(indices)),
            **kwargs)  # yapf: disable
    return build_model_with_cfg(
        builder(arch, HRFormerFeatures, cfg), variant, False,
        kwargs_filter=HEAD_ARGUMENTS,
        out_indices=indices,
        **kwargs)


def describe_weights(file: str, **more: Any) -> dict[str, Any]:
    """Return timm's description of the ImageNet weights in a file."""
    return dict(
        file=file,
        num_classes=1000,
        input_size=(3, 224, 224),
        pool_size=(7, 7),
        crop_pct=.875,
        interpolation='bicubic',
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv='backbone.conv1',
        classifier='head.fc',
        license='mit',
        origin_url='https://github.com/HRNet/HRFormer',
        paper_name='HRFormer: High-Resolution Transformer for Dense '
        'Prediction',
        paper_ids='arXiv:2110.09408',
        **more)


default_cfgs = generate_default_cfgs({
    'hrformer_tiny.in1k': describe_weights(
        'hrt_tiny.pth',
        notes=('its accuracy with the released code is 2 %', )),
    'hrformer_small.in1k': describe_weights('hrt_small.pth'),
    'hrformer_base.in1k': describe_weights('hrt_base.pth'),
})  # yapf: disable


@register_model
def hrformer_tiny(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build HRFormer-T."""
    return create('hrformer_tiny', pretrained, **kwargs)


@register_model
def hrformer_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build HRFormer-S."""
    return create('hrformer_small', pretrained, **kwargs)


@register_model
def hrformer_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build HRFormer-B."""
    return create('hrformer_base', pretrained, **kwargs)
