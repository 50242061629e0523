# DeepLabv3 over ResNet-101 with stride 8 (Table 5), as MMSegmentation has it.
_base_ = './pspnet_r101.py'

model = dict(
    decode_head=dict(
        _delete_=True,
        type='ASPPHead',
        in_channels=2048,
        channels=512,
        dilations=(1, 12, 24, 36),
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')))
