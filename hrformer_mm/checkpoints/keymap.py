# Copyright (c) hrformer-mm contributors. Licensed under Apache-2.0.
"""Tensor names of every code base that has released HRFormers.

The baselines that are built on an HRNet are included.

The table :data:`LAYOUTS` lists how each differs from ours. A key is read as
wrapper + part + rest: the wrapper (``module.``) is dropped, the part is the
backbone or a piece of a head, and the rest differs inside transformer blocks
only. Our own names are those of whole models of MMPose, MMSegmentation and
MMPretrain: ``backbone.``, ``head.``, ``decode_head.``, ``neck.``.
"""
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Pairs = tuple[tuple[str, str], ...]
Parts = tuple[tuple[str, str | None], ...]

BACKBONE = 'backbone.'
TABLE = 'relative_position_bias_table'
INDEX = 'relative_position_index'
# Every HRFormer and HRNet has this tensor, for any size and task.
ANCHOR = 'stage2.0.fuse_layers.0.1.0.weight'
BASIC_BLOCK = 'stage2.0.branches.0.0.conv1.'  # an HRNet's
QKV = re.compile(r'(.*\.attn\.attn\.)qkv\.(weight|bias)$')
Q_PROJ = re.compile(r'(.*\.attn\.attn\.)q_proj\.(weight|bias)$')


@dataclass(frozen=True)
class Layout:
    """Differences between the tensor names of a code base and ours.

    Attributes:
        parts: Prefixes of whole parts, (ours, theirs); ``None`` if the code
            base lacks the part.
        blocks: Pieces of names inside transformer blocks, (ours, theirs).
        layers: Pieces of names outside the backbone, (ours, theirs).
        split_qkv: Whether queries, keys and values have separate projections.
        index: Whether relative position indices are stored.
        container: Entry of the file that holds the tensors; empty if the file
            is the state dict.
        wrapper: Prefix of all names in files.
        arguments: Model semantics of the code base, as arguments of our
            backbone, as far as its tensors do not show them.
        hrnet: The same for its HRNets, or ``None`` if it has none.
        transformer: Whether it has HRFormers.
        needs: Prefix of ours that a model must have to fit the layout.
        derived: Tensors that our models compute instead of storing them.
    """
    parts: Parts
    blocks: Pairs = ()
    layers: Pairs = ()
    split_qkv: bool = False
    index: bool = True
    container: str = 'state_dict'
    wrapper: str = ''
    arguments: Mapping[str, Any] = field(default_factory=dict)
    hrnet: Mapping[str, Any] | None = None
    transformer: bool = True
    needs: str = ''
    derived: tuple[str, ...] = ()

    def semantics(self, hrnet: bool) -> Mapping[str, Any]:
        """Return the model semantics of this code base."""
        return (self.hrnet or {}) if hrnet else self.arguments

    @property
    def root(self) -> str:
        """Return the prefix of the names of the backbone."""
        return dict(self.parts)[BACKBONE] or ''


def conv_bn_keys(ours: str, theirs: str, conv: int = 0) -> Pairs:
    """Return the pairs of a convolution and its norm in a Sequential."""
    return ((f'{ours}.conv.', f'{theirs}.{conv}.'),
            (f'{ours}.bn.', f'{theirs}.{conv + 1}.0.'))


OUT_PROJ = ('.attn.attn.proj.', '.attn.attn.out_proj.')
# A convolution, its norm and an activation for each of three layers.
SEQUENTIAL_FFN = tuple(
    (f'.ffn.{ours}.', f'.ffn.layers.{i}.') for ours, i in (
        ('fc1', 0), ('norm1', 1), ('dw3x3', 3), ('norm2', 4), ('fc2', 6),
        ('norm3', 7)))  # yapf: disable
OCR = 'ocr_distri_head.object_context_block'
OFFICIAL_OCR = (
    *conv_bn_keys('decode_head.bottleneck', 'conv3x3'),
    *conv_bn_keys('decode_head.ocr.query_project.0', f'{OCR}.f_pixel'),
    *conv_bn_keys('decode_head.ocr.query_project.1', f'{OCR}.f_pixel', 2),
    *conv_bn_keys('decode_head.ocr.key_project.0', f'{OCR}.f_object'),
    *conv_bn_keys('decode_head.ocr.key_project.1', f'{OCR}.f_object', 2),
    *conv_bn_keys('decode_head.ocr.value_project', f'{OCR}.f_down'),
    *conv_bn_keys('decode_head.ocr.out_project', f'{OCR}.f_up'),
    *conv_bn_keys('decode_head.ocr.bottleneck',
                  'ocr_distri_head.conv_bn_dropout'),
    ('decode_head.conv_seg.', 'cls_head.'),
    *conv_bn_keys('decode_head.aux.conv', 'aux_head'),
    ('decode_head.aux.conv_seg.', 'aux_head.2.'),
)
# MMPretrain's classifier is called head, too.
HEATMAPS = ((BACKBONE, BACKBONE), ('head.', 'head.'), ('head.fc.', None))
OLD_HEATMAPS = ((BACKBONE, BACKBONE), ('head.', 'keypoint_head.'),
                ('head.fc.', None))  # yapf: disable
OFFICIAL_FFN = ('.ffn.', '.mlp.')
OFFICIAL: dict[str, Any] = dict(
    blocks=(OUT_PROJ, OFFICIAL_FFN), split_qkv=True)
# Reading accepts all of them, as ports have mixed them.
ALL_BLOCKS = (OUT_PROJ, OFFICIAL_FFN, *SEQUENTIAL_FFN)
# The official pose code has the bias tables but does not add them.
NEAREST = dict(rel_pos_bias=True, upsample='nearest')
BILINEAR = dict(rel_pos_bias=False, upsample='bilinear')

# Upsampling in the fusion of HRNets, which no tensor shows: that of their
# authors in classification and pose, and in segmentation.
PLAIN_HRNET = dict(upsample='nearest')
SEG_HRNET = dict(upsample='bilinear_aligned')
# The HRNet project's own OCR: layers as above, outside the backbone, but its
# large convolutions have a plain batch norm, and the auxiliary one is 1x1.
HRNET_OCR = (
    ('decode_head.bottleneck.conv.', 'conv3x3_ocr.0.'),
    ('decode_head.bottleneck.bn.', 'conv3x3_ocr.1.'),
    *(pair for pair in OFFICIAL_OCR if pair[1].startswith(
        ('ocr_distri_head.', 'cls_head.'))),
    ('decode_head.aux.conv.conv.', 'aux_head.0.'),
    ('decode_head.aux.conv.bn.', 'aux_head.1.'),
    ('decode_head.aux.conv_seg.', 'aux_head.3.'),
)
# An encoder layer of TokenPose: two residuals with a norm before each.
TOKEN_LAYER = (
    ('.norm1.', '.0.fn.norm.'),
    ('.self_attn.in_proj_weight', '.0.fn.fn.to_qkv.weight'),
    ('.self_attn.out_proj.', '.0.fn.fn.to_out.0.'),
    ('.norm2.', '.1.fn.norm.'),
    ('.linear1.', '.1.fn.fn.net.0.'),
    ('.linear2.', '.1.fn.fn.net.3.'),
)
PRTR_BODY, TOKEN_BODY = 'backbone.0.body.', 'pre_feature.'
# Prefixes of backbones inside whole models.
ROOTS = (BACKBONE, PRTR_BODY, TOKEN_BODY)
BASELINE: dict[str, Any] = dict(
    index=False, container='', transformer=False, hrnet=PLAIN_HRNET)

LAYOUTS = {
    'ours': Layout(((BACKBONE, BACKBONE), ), index=False, hrnet={}),
    'mmpose': Layout(
        HEATMAPS, arguments=dict(upsample='bilinear'), hrnet=PLAIN_HRNET),
    # Before MMPose 1.0.
    'mmpose-0.x': Layout(
        OLD_HEATMAPS, arguments=dict(upsample='bilinear'), hrnet=PLAIN_HRNET),
    # With the feed-forward of the ports below.
    'mmpose-sequential': Layout(
        HEATMAPS, SEQUENTIAL_FFN, arguments=dict(upsample='bilinear')),
    # The port to MMSegmentation (mmseg#1382), which HRFuser brought to MMDet,
    # and its first version. Their heads differ.
    'mmseg': Layout(((BACKBONE, BACKBONE), ), (OUT_PROJ, *SEQUENTIAL_FFN)),
    'mmseg-early': Layout(
        ((BACKBONE, BACKBONE), ), (OUT_PROJ, ), split_qkv=True),
    'official-cls': Layout(
        ((BACKBONE, ''), ('neck.incre_modules.', 'incre_modules.'),
         ('neck.downsamp_modules.', 'downsamp_modules.'),
         ('neck.final_layer.', 'final_layer.'), ('head.fc.', 'classifier.')),
        container='model', arguments=NEAREST, hrnet=PLAIN_HRNET, **OFFICIAL),
    'official-pose': Layout(OLD_HEATMAPS, arguments=BILINEAR, **OFFICIAL),
    'official-seg': Layout(
        ((BACKBONE, BACKBONE), *OFFICIAL_OCR), arguments=NEAREST,
        hrnet=SEG_HRNET, **OFFICIAL),
    # The HRNet project's own: pose, and segmentation with OCR.
    'hrnet-pose': Layout(
        ((BACKBONE, ''), ('head.final_layer.', 'final_layer.')),
        needs='head.final_layer.', **BASELINE),
    'hrnet-ocr': Layout(
        ((BACKBONE, ''), *HRNET_OCR), needs='decode_head.ocr.',
        **{**BASELINE, 'hrnet': SEG_HRNET, 'wrapper': 'model.'}),
    'transpose': Layout(
        ((BACKBONE, ''), ('neck.reduce.', 'reduce.'),
         ('neck.layers.', 'global_encoder.layers.'),
         ('head.final_layer.', 'final_layer.')),
        needs='neck.layers.', derived=('pos_embedding', ), **BASELINE),
    'tokenpose': Layout(
        ((BACKBONE, TOKEN_BODY), ('neck.tokens', 'transformer.keypoint_token'),
         ('neck.patches.', 'transformer.patch_to_embedding.'),
         *((f'neck.groups.{i}.', f'transformer.transformer{i + 1}.layers.')
           for i in range(3)),
         ('neck.draw.', 'transformer.mlp_head.')),
        layers=TOKEN_LAYER, needs='neck.groups.',
        derived=('transformer.pos_embedding', ), **BASELINE),
    'prtr': Layout(
        ((BACKBONE, PRTR_BODY),
         *((f'head.represent.{part}.', f'{PRTR_BODY}{part}.') for part in
           ('incre_modules', 'downsamp_modules', 'final_layer')),
         ('head.reduce.', 'input_proj.'),
         ('head.encoders.', 'transformer.encoder.layers.'),
         ('head.decoders.', 'transformer.decoder.layers.'),
         ('head.norm.', 'transformer.decoder.norm.'),
         ('head.queries', 'query_embed.weight'),
         ('head.classify.', 'class_embed.'),
         *((f'head.locate.{2 * i}.', f'kpt_embed.layers.{i}.')
           for i in range(3))),
        needs='head.queries', **BASELINE),
}  # yapf: disable
TARGETS = ('ours', 'mmpose', 'official-cls', 'official-pose', 'official-seg')
# Targets for weights of the same baseline only.
BASELINE_TARGETS = ('hrnet-pose', 'hrnet-ocr', 'transpose', 'tokenpose',
                    'prtr')


def rename(key: str, layout: Layout, to_ours: bool) -> str | None:
    """Rename a tensor from a layout to ours, or from ours to the layout.

    Returns:
        The new name, or ``None`` if the target has no such tensor.
    """
    way = -1 if to_ours else 1
    parts = [pair[::way] for pair in layout.parts]
    fits = [(old, new) for old, new in parts
            if old is not None and key.startswith(old)]
    if not fits:
        return None
    old, new = max(fits, key=lambda pair: len(pair[0]))  # the most specific
    if new is None:
        return None
    rest = key[len(old):]
    blocks: Pairs = layout.layers
    if BACKBONE in (old, new):
        blocks = ALL_BLOCKS if to_ours else layout.blocks
    for a, b in (pair[::way] for pair in blocks):
        rest = rest.replace(a, b)
    return new + rest


def roots(keys: Iterable[str]) -> list[str]:
    """Return the prefix of each backbone among the keys."""
    return sorted({k[:-len(ANCHOR)]
                   for k in keys if k.endswith(ANCHOR)},
                  key=lambda root: (len(root), root))


# Prefixes that only the names of one layout have.
SIGNS = dict(
    transpose='global_encoder.', tokenpose=TOKEN_BODY, prtr=PRTR_BODY)
SIGNS['hrnet-ocr'] = 'conv3x3_ocr.'


def is_hrnet(keys: Iterable[str]) -> bool:
    """Check for the basic blocks of an HRNet among the names of tensors."""
    return any(BASIC_BLOCK in k for k in keys)


def recognise(keys: Iterable[str]) -> str:
    """Return the layout of a model by its keys, without wrappers."""
    keys = set(keys)

    def starts(*prefixes: str) -> bool:
        return any(k.startswith(prefixes) for k in keys)

    def has(piece: str) -> bool:
        return any(piece in k for k in keys)

    for source, sign in SIGNS.items():
        if starts(sign):
            return source
    is_split = has('.attn.attn.q_proj.')
    if starts('keypoint_head.'):
        return 'official-pose' if is_split else 'mmpose-0.x'
    if starts('ocr_distri_head.', 'aux_head.', 'cls_head.', 'conv3x3.'):
        return 'official-seg'
    if starts('classifier.', 'incre_modules.', 'downsamp_modules.'):
        return 'official-cls'
    if starts('final_layer.'):
        return 'hrnet-pose'
    if is_split and has('.ffn.'):
        return 'mmseg-early'
    if is_split:  # an official backbone alone
        return 'official-cls' if out_indices(keys) != (0, ) else \
            'official-pose'
    if has(OUT_PROJ[1]):
        return 'mmseg'
    if has('.ffn.layers.'):
        return 'mmpose-sequential'
    return 'mmpose' if has(INDEX) else 'ours'


def out_indices(keys: Iterable[str]) -> tuple[int, ...]:
    """Infer the returned branches from the outputs of the last module."""
    matches = map(
        re.compile(r'stage([34])\.(\d+)\.fuse_layers\.(\d)\.').search, keys)
    outs = {(int(m[1]), int(m[2]), int(m[3])) for m in matches if m}
    last = max((module[:2] for module in outs), default=(0, 0))
    return tuple(sorted(out[2] for out in outs if out[:2] == last))


def task_of(keys: Iterable[str]) -> str | None:
    """Return the task of a model in our layout, ``None`` for a backbone."""
    for task, parts in (('cls', ('neck.incre_modules.', 'head.fc.')),
                        ('pose', ('head.final_layer.', 'neck.draw.',
                                  'head.queries')),
                        ('seg', ('decode_head.', ))):
        if any(k.startswith(parts) for k in keys):
            return task
    return None
