# DPT-Hybrid: ViT-B/16 over three stages of ResNet-50, the network of DPT's
# authors. Its weights for ImageNet are those of timm's vit_base_r50_s16_384.
_base_ = './pspnet_r101.py'

model = dict(
    type='hrformer_mm.DPTHybrid',
    # As the authors normalise.
    data_preprocessor=dict(
        mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        _delete_=True,
        type='hrformer_mm.HybridViT',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='hrformer_mm://vit_base_r50_s16_384.safetensors')),
    decode_head=dict(
        _delete_=True,
        type='hrformer_mm.HybridDPTHead',
        channels=256,
        num_classes=59,
        align_corners=True,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=None)
