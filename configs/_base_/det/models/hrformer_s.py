# HRFormer-S with MMDetection's feature pyramid for HRNets. Classification and
# segmentation fuse with nearest, and so does this.
model = dict(
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='hrformer_mm.HRFormer',
        arch='small',
        drop_path_rate=0.2,
        upsample='nearest',
        init_cfg=dict(type='Pretrained', checkpoint='hrt_small.pth')),
    neck=dict(
        type='HRFPN', in_channels=[32, 64, 128, 256], out_channels=256))
coder = dict(type='DeltaXYWHBBoxCoder')  # of boxes, relative to anchors
focal = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
binary = dict(type='CrossEntropyLoss', use_sigmoid=True)
one_stage = dict(  # selection of boxes
    nms_pre=1000,
    min_bbox_size=0,
    score_thr=0.05,
    nms=dict(type='nms', iou_threshold=0.5),
    max_per_img=100)
first_stage = dict(
    nms_pre=2000,
    max_per_img=1000,
    nms=dict(type='nms', iou_threshold=0.7),
    min_bbox_size=0)
second_stage = dict(
    score_thr=0.05,
    nms=dict(type='nms', iou_threshold=0.5),
    max_per_img=100)
