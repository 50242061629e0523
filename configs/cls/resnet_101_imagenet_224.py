# ResNet-101 on ImageNet-1k, with HRFormer's recipe.
_base_ = './hrformer_s_imagenet_224.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=101),
    neck=dict(_delete_=True, type='GlobalAveragePooling'))
