# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Entry points of torch.hub.

Example::

    torch.hub.load('DIR', 'hrformer_small', source='local', pretrained=True)
"""
from typing import Any as _Any

from hrformer_mm.checkpoints import load_pretrained as _load_pretrained
from hrformer_mm.core import HRFormer as _HRFormer

dependencies = ['torch', 'mmengine', 'mmcv']


def _build(arch: str, pretrained: _Any, **kwargs: _Any) -> _HRFormer:
    model = _HRFormer(arch, **kwargs)
    if pretrained:
        _load_pretrained(
            model,
            f'hrt_{arch}.pth' if pretrained is True else pretrained)
    return model.eval()


def hrformer_tiny(pretrained: _Any = False, **kwargs: _Any) -> _HRFormer:
    """Build the backbone HRFormer-T, which returns maps of four resolutions.

    Args:
        pretrained: ``True`` loads the official ImageNet weights, which have to
            be in ``weights`` or ``$HRFORMER_MM_WEIGHTS``; a path, name or URL
            loads a checkpoint of any layout.
        **kwargs: Arguments of :class:`hrformer_mm.core.HRFormer`.
    """
    return _build('tiny', pretrained, **kwargs)


def hrformer_small(pretrained: _Any = False, **kwargs: _Any) -> _HRFormer:
    """Build the backbone HRFormer-S, which returns maps of four resolutions.

    Args:
        pretrained: ``True`` loads ImageNet weights: the official file if it is
            there, otherwise MMPose's, which is downloaded once. A path, name
            or URL loads a checkpoint of any layout.
        **kwargs: Arguments of :class:`hrformer_mm.core.HRFormer`.
    """
    return _build('small', pretrained, **kwargs)


def hrformer_base(pretrained: _Any = False, **kwargs: _Any) -> _HRFormer:
    """Build the backbone HRFormer-B, which returns maps of four resolutions.

    Args:
        pretrained: As for :func:`hrformer_small`.
        **kwargs: Arguments of :class:`hrformer_mm.core.HRFormer`.
    """
    return _build('base', pretrained, **kwargs)
