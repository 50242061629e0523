_base_ = './rpn.py'

model = dict(
    type='FasterRCNN',
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=_base_.extractor,
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=256,
            num_classes=80,
            bbox_coder=dict(_base_.coder, target_stds=[0.1, 0.1, 0.2, 0.2]),
            loss_bbox=dict(type='L1Loss'))),
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=False,
                ignore_iof_thr=-1),
            sampler=dict(type='RandomSampler', num=512, pos_fraction=0.25),
            pos_weight=-1)),
    test_cfg=dict(rcnn=_base_.second_stage))
