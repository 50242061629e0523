# PSPNet over ResNet-101 with stride 8 (Table 5), as MMSegmentation has it.
# Other configs replace its head, or its backbone as well.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='ResNetV1c',
        depth=101,
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=dict(type='BN'),
        contract_dilation=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='hrformer_mm://resnet101_v1c-e67eebb6.pth')),
    decode_head=dict(
        type='PSPHead',
        in_channels=2048,
        channels=512,
        pool_scales=(1, 2, 3, 6),
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)),
    test_cfg=dict(mode='whole'))
