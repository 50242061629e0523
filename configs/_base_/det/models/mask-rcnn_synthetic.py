# For the quickstart, from scratch: the channels of HRFormer-T, one module of
# one block in a stage, and small heads for one class. Steps take half the time
# of HRFormer-T. Without pretraining, neck and heads learn faster with norms.
_base_ = './mask-rcnn.py'

norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            channels=(18, 36, 72, 144),
            heads=(1, 2, 4, 8),
            modules=(1, 1, 1),
            blocks=1),
        drop_path_rate=0.,
        init_cfg=None),
    neck=dict(
        in_channels=[18, 36, 72, 144],
        out_channels=64,
        num_outs=4,
        norm_cfg=dict(type='BN')),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=64, roi_layer=dict(sampling_ratio=1)),
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=2,
            num_shared_fcs=1,
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            num_classes=1,
            norm_cfg=norm_cfg),
        mask_roi_extractor=dict(
            out_channels=64, roi_layer=dict(sampling_ratio=1)),
        mask_head=dict(
            num_convs=2,
            in_channels=64,
            conv_out_channels=32,
            num_classes=1,
            norm_cfg=norm_cfg,
            loss_mask=dict(loss_weight=0.5))),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=24, pos_fraction=0.5))),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=20)))
