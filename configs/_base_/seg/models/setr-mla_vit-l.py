# SETR-MLA over ViT-L (Table 5), as MMSegmentation has it.
_base_ = './setr-pup_vit-l.py'

auxiliary_head = [dict(
    type='FCNHead', in_channels=256, channels=256, in_index=i,
    num_classes=59, dropout_ratio=0, num_convs=0, kernel_size=1,
    concat_input=False,
    loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4))
                  for i in range(4)]
model = dict(
    backbone=dict(
        img_size=(480, 480),
        out_indices=(5, 11, 17, 23),
        with_cls_token=False),
    neck=dict(
        type='MLANeck',
        in_channels=[1024] * 4,
        out_channels=256,
        norm_cfg=_base_.norm_cfg,
        act_cfg=dict(type='ReLU')),
    decode_head=dict(
        _delete_=True,
        type='SETRMLAHead',
        in_channels=(256, ) * 4,
        channels=512,
        in_index=(0, 1, 2, 3),
        num_classes=59,
        dropout_ratio=0,
        mla_channels=128,
        norm_cfg=_base_.norm_cfg,
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=auxiliary_head,
    test_cfg=dict(crop_size=(480, 480), stride=(320, 320)))
