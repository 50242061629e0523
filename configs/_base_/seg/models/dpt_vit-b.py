# DPT over ViT-B, as MMSegmentation has it. The paper's row is DPT-Hybrid, for
# which it has no backbone.
_base_ = './pspnet_r101.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='VisionTransformer',
        img_size=224,
        embed_dims=768,
        out_indices=(2, 5, 8, 11),
        output_cls_token=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='hrformer_mm://vit-b16_p16_224-80ecf9dd.pth')),
    decode_head=dict(
        _delete_=True,
        type='DPTHead',
        in_channels=(768, ) * 4,
        channels=256,
        embed_dims=768,
        post_process_channels=[96, 192, 384, 768],
        readout_type='project',
        input_transform='multiple_select',
        in_index=(0, 1, 2, 3),
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=None)
