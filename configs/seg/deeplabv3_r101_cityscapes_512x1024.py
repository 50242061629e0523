# DeepLabv3 on Cityscapes (Table 5), with MMSegmentation's recipe.
_base_ = './pspnet_r101_cityscapes_512x1024.py'

model = dict(
    decode_head=dict(
        _delete_=True, type='ASPPHead', in_channels=2048, channels=512,
        num_classes=19, dilations=(1, 12, 24, 36), norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')))
