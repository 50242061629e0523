# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""The names of HRFormer's tensors in every code base that has released any.

One table, :data:`LAYOUTS`, says how each differs from ours. A key is read as
wrapper + part + rest: the wrapper (``module.``) is dropped, the part is the
backbone or a piece of a head, and the rest differs inside transformer blocks
only. Our own names are those of whole models of MMPose, MMSegmentation and
MMPretrain: ``backbone.``, ``head.``, ``decode_head.``, ``neck.``.
"""
import re
from dataclasses import dataclass
from typing import Iterable, List, Optional, Tuple

Pairs = Tuple[Tuple[str, str], ...]

BACKBONE = 'backbone.'
TABLE = 'relative_position_bias_table'
INDEX = 'relative_position_index'
# Every HRFormer and HRNet has this tensor, whatever its size and its task.
ANCHOR = 'stage2.0.fuse_layers.0.1.0.weight'
QKV = re.compile(r'(.*\.attn\.attn\.)qkv\.(weight|bias)$')
Q_PROJ = re.compile(r'(.*\.attn\.attn\.)q_proj\.(weight|bias)$')


@dataclass(frozen=True)
class Layout:
    """How the names of a code base differ from ours.

    Attributes:
        parts: Prefixes of whole parts, (ours, theirs).
        blocks: Pieces of names inside transformer blocks, (ours, theirs).
        split_qkv: Queries, keys and values have a projection each.
        index: Relative position indices are stored.
        container: Entry of the file that holds the tensors.
    """
    parts: Pairs
    blocks: Pairs = ()
    split_qkv: bool = False
    index: bool = True
    container: str = 'state_dict'


def conv_bn(ours: str, theirs: str, conv: int = 0) -> Pairs:
    """A convolution and its norm, the norm inside a Sequential of its own."""
    return ((f'{ours}.conv.', f'{theirs}.{conv}.'),
            (f'{ours}.bn.', f'{theirs}.{conv + 1}.0.'))


OFFICIAL_BLOCKS = (('.attn.attn.proj.', '.attn.attn.out_proj.'),
                   ('.ffn.', '.mlp.'))
# A convolution, its norm and an activation for each of three layers.
SEQUENTIAL_FFN = tuple(
    (f'.ffn.{ours}.', f'.ffn.layers.{i}.') for ours, i in (
        ('fc1', 0), ('norm1', 1), ('dw3x3', 3), ('norm2', 4), ('fc2', 6),
        ('norm3', 7)))  # yapf: disable
OCR = 'ocr_distri_head.object_context_block'
OFFICIAL_OCR = (
    *conv_bn('decode_head.bottleneck', 'conv3x3'),
    *conv_bn('decode_head.ocr.query_project.0', f'{OCR}.f_pixel'),
    *conv_bn('decode_head.ocr.query_project.1', f'{OCR}.f_pixel', 2),
    *conv_bn('decode_head.ocr.key_project.0', f'{OCR}.f_object'),
    *conv_bn('decode_head.ocr.key_project.1', f'{OCR}.f_object', 2),
    *conv_bn('decode_head.ocr.value_project', f'{OCR}.f_down'),
    *conv_bn('decode_head.ocr.out_project', f'{OCR}.f_up'),
    *conv_bn('decode_head.ocr.bottleneck',
             'ocr_distri_head.conv_bn_dropout'),
    ('decode_head.conv_seg.', 'cls_head.'),
    *conv_bn('decode_head.aux.conv', 'aux_head'),
    ('decode_head.aux.conv_seg.', 'aux_head.2.'),
)
MMPOSE_PARTS = ((BACKBONE, BACKBONE), ('head.', 'head.'))

LAYOUTS = {
    'ours': Layout(((BACKBONE, BACKBONE), ), index=False),
    'mmpose': Layout(MMPOSE_PARTS),
    # Of MMPose before 1.0; and with the FFN of the pull requests to MMSeg.
    'mmpose-0.x': Layout(((BACKBONE, BACKBONE), ('head.', 'keypoint_head.'))),
    'mmpose-sequential': Layout(MMPOSE_PARTS, SEQUENTIAL_FFN),
    'official-cls': Layout(
        ((BACKBONE, ''), ('neck.incre_modules.', 'incre_modules.'),
         ('neck.downsamp_modules.', 'downsamp_modules.'),
         ('neck.final_layer.', 'final_layer.'), ('head.fc.', 'classifier.')),
        OFFICIAL_BLOCKS, split_qkv=True, container='model'),
    'official-pose': Layout(
        ((BACKBONE, BACKBONE), ('head.', 'keypoint_head.')),
        OFFICIAL_BLOCKS, split_qkv=True),
    'official-seg': Layout(
        ((BACKBONE, BACKBONE), *OFFICIAL_OCR),
        OFFICIAL_BLOCKS, split_qkv=True),
}  # yapf: disable
TARGETS = ('ours', 'mmpose', 'official-cls', 'official-pose', 'official-seg')


def longest_first(pairs: Iterable[Tuple[str, str]]) -> Pairs:
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


def rename(key: str, layout: Layout, to_ours: bool) -> Optional[str]:
    """The name of a tensor in ours (or of ours in the layout).

    ``None`` if the layout has no such part.
    """
    parts, blocks = layout.parts, layout.blocks
    if to_ours:
        parts = [pair[::-1] for pair in parts]
        blocks = [pair[::-1] for pair in blocks]
    for old, new in longest_first(parts):
        if key.startswith(old):
            rest = key[len(old):]
            break
    else:
        return None
    if BACKBONE in (old, new):
        for a, b in blocks:
            rest = rest.replace(a, b)
    return new + rest


def roots(keys: Iterable[str]) -> List[str]:
    """What stands before the names of each backbone among the keys."""
    return sorted(
        {k[:-len(ANCHOR)] for k in keys if k.endswith(ANCHOR)}, key=len)


def recognise(keys: Iterable[str]) -> str:
    """The layout of a model by its keys, wrappers removed."""
    keys = set(keys)

    def has(*pieces: str) -> bool:
        return any(piece in key for piece in pieces for key in keys)

    if has('.attn.attn.q_proj.'):
        if has('keypoint_head.'):
            return 'official-pose'
        if has('ocr_distri_head.', 'aux_head.', 'cls_head.', 'conv3x3.'):
            return 'official-seg'
        if has('classifier.', 'incre_modules.', 'downsamp_modules.'):
            return 'official-cls'
        return 'official-cls' if gives_four_maps(keys) else 'official-pose'
    if has('.ffn.layers.'):
        return 'mmpose-sequential'
    if has('keypoint_head.'):
        return 'mmpose-0.x'
    return 'mmpose' if has(INDEX) else 'ours'


def gives_four_maps(keys: Iterable[str]) -> bool:
    """Whether the last module has more than the finest output."""
    found = re.compile(r'stage4\.(\d+)\.fuse_layers\.(\d+)\.').search
    outs = {(int(m[1]), int(m[2])) for m in map(found, keys) if m}
    last = max((module for module, _ in outs), default=0)
    return any(module == last and branch > 0 for module, branch in outs)
