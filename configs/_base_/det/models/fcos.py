# FCOS with group norms in its head, on strides 8 to 128.
_base_ = './hrformer_s.py'

model = dict(
    type='FCOS',
    neck=dict(stride=2),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=80,
        in_channels=256,
        strides=[8, 16, 32, 64, 128],
        norm_cfg=dict(type='GN', num_groups=32),
        loss_cls=_base_.focal,
        loss_bbox=dict(type='IoULoss'),
        loss_centerness=_base_.binary),
    test_cfg=_base_.one_stage)
