# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Models accept each argument or report the valid choices."""
import math

import pytest
import torch
from foreign import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hrformer_mm.core.cls_head import RepresentationHead
from hrformer_mm.core.hrformer import HRFormer
from hrformer_mm.core.ocr import OCR

ARCH = dict(channels=TINY.channels, heads=TINY.heads, modules=(1, 1, 1),
            blocks=1, mlp_ratio=2)
numbers = st.one_of(
    st.integers(-2, 6), st.floats(), st.booleans(), st.none(),
    st.sampled_from(['', '7', 'tiny', 'window', 'dwconv', 'conv', 'ffn']))
anything = st.one_of(
    numbers, numbers, st.lists(numbers, max_size=5), st.just({}),
    st.lists(st.integers(1, 4), min_size=3, max_size=5).map(tuple))
sizes = st.tuples(*[st.integers(1, 70)] * 2)
thorough = settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck))  # yapf: disable


def some(names):
    """Anything for one or two arguments."""
    return st.dictionaries(st.sampled_from(names), anything, min_size=1,
                           max_size=2)


def build(kind, arguments, names):
    """The model on no memory, or nothing if an argument was refused."""
    try:
        with torch.device('meta'):
            return kind(**arguments).eval()
    except ValueError as error:
        text = str(error)
        assert '\n' not in text and any(n in text for n in names), text
        return None


def maps_of(channels, hw):
    return [torch.empty(2, c, *(math.ceil(n / 2**i) for n in hw),
                        device='meta') for i, c in enumerate(channels)]


@thorough
@given(
    some(['in_channels', 'out_indices', 'window_size', 'drop_path_rate',
          'ffn', 'attention', 'block', 'rel_pos_bias', 'upsample',
          'mask_padding', 'with_cp', 'kernels']),
    st.one_of(st.just({}), st.just({}), some([*ARCH, 'depth']), anything),
    sizes)
def test_the_backbone_accepts_or_names_each_argument(arguments, arch, hw):
    names = list(arguments)
    if isinstance(arch, dict):
        names += [n for n in arch]
        arch = {**ARCH, **arch}
    names.append('arch')
    model = build(HRFormer, dict(arguments, arch=arch), names)
    if model is None or arch == 'tiny':  # which takes long on many examples
        return
    x = torch.empty(2, arguments.get('in_channels', 3), *hw, device='meta')
    maps = model(x)
    assert [list(y.shape) for y in maps] == [
        [2, model.arch.channels[i], *(math.ceil(n / (4 * 2**i)) for n in hw)]
        for i in model.out_indices]


@thorough
@given(
    some(['in_channels', 'num_classes', 'channels', 'ocr_channels',
          'aux_channels', 'dropout_ratio', 'kernel_size', 'groups',
          'align_corners']), sizes)
def test_the_segmentation_head_accepts_or_names_each_argument(arguments, hw):
    whole = {**dict(in_channels=(4, 8), num_classes=3, channels=8,
                    ocr_channels=4), **arguments}
    head = build(OCR, whole, list(arguments))
    if head is not None:
        for logits in head(maps_of(whole['in_channels'], hw)):
            assert list(logits.shape) == [2, whole['num_classes'], *hw]


@thorough
@given(some(['in_channels', 'dw_conv']), sizes)
def test_the_classification_head_accepts_or_names_each_argument(arguments, hw):
    whole = dict(dict(in_channels=(4, 8, 12, 16)), **arguments)
    head = build(RepresentationHead, whole, list(arguments))
    if head is not None:
        y = head(maps_of(whole['in_channels'], hw))
        assert list(y.shape) == [2, 2048, *(math.ceil(n / 8) for n in hw)]


@pytest.mark.parametrize('kind, arguments', [
    (HRFormer, dict(in_channels=True)), (HRFormer, dict(out_indices=[0.])),
    (HRFormer, dict(rel_pos_bias='no')), (OCR, dict(groups=0)),
    (OCR, dict(dropout_ratio=1)), (RepresentationHead, dict(dw_conv='no'))],
    ids=str)
def test_values_of_a_wrong_type_or_range_raise(kind, arguments):
    rest = {OCR: dict(in_channels=(4, 8), num_classes=3),
            RepresentationHead: dict(in_channels=(4, 8, 12, 16))}
    whole = {**rest.get(kind, {}), **arguments}
    assert build(kind, whole, list(arguments)) is None
