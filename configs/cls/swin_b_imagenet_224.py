# Swin-B on ImageNet-1k with HRFormer's recipe and Swin's stochastic depth.
_base_ = './hrformer_s_imagenet_224.py'

model = dict(
    backbone=dict(
        _delete_=True, type='SwinTransformer', arch='base', img_size=224,
        drop_path_rate=0.5),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=1024))
