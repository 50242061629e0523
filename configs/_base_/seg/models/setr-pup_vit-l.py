# SETR-PUP over ViT-L (Table 5), as MMSegmentation has it.
_base_ = './pspnet_r101.py'

norm_cfg = dict(type='BN')
maps = [dict(
    type='SETRUPHead', in_channels=1024, channels=256, in_index=i,
    num_classes=19, dropout_ratio=0, norm_cfg=norm_cfg, num_convs=2,
    up_scale=4, kernel_size=3,
    loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4))
        for i in range(3)]
model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        img_size=(768, 768),
        embed_dims=1024,
        num_layers=24,
        num_heads=16,
        out_indices=(9, 14, 19, 23),
        norm_cfg=dict(type='LN', eps=1e-6),
        init_cfg=dict(
            type='Pretrained', checkpoint='hrformer_mm://vit_large_p16.pth')),
    decode_head=dict(
        _delete_=True,
        type='SETRUPHead',
        in_channels=1024,
        channels=256,
        num_classes=19,
        dropout_ratio=0,
        norm_cfg=norm_cfg,
        num_convs=4,
        up_scale=2,
        kernel_size=3,
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=maps,
    test_cfg=dict(mode='slide', crop_size=(768, 768), stride=(512, 512)))
