# Three stages that ask for more and more overlap.
_base_ = './rpn.py'

smooth = dict(type='SmoothL1Loss', beta=1.0)
sampler = dict(type='RandomSampler', num=512, pos_fraction=0.25)
stds = (0.1, 0.1, 0.2, 0.2)
model = dict(
    type='CascadeRCNN',
    data_preprocessor=dict(pad_mask=True),
    rpn_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1.0 / 9.0)),
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_roi_extractor=_base_.extractor,
        bbox_head=[
            dict(
                type='Shared2FCBBoxHead',
                in_channels=256,
                num_classes=80,
                reg_class_agnostic=True,
                bbox_coder=dict(
                    _base_.coder, target_stds=[x / i for x in stds]),
                loss_bbox=smooth) for i in (1, 2, 3)
        ],
        mask_roi_extractor=_base_.mask_extractor,
        mask_head=_base_.mask_head),
    train_cfg=dict(
        rpn_proposal=dict(max_per_img=2000),
        rcnn=[
            dict(
                assigner=dict(
                    type='MaxIoUAssigner',
                    pos_iou_thr=iou,
                    neg_iou_thr=iou,
                    min_pos_iou=iou,
                    match_low_quality=False),
                sampler=sampler,
                mask_size=28,
                pos_weight=-1) for iou in (0.5, 0.6, 0.7)
        ]),
    test_cfg=dict(rcnn=dict(_base_.second_stage, mask_thr_binary=0.5)))
