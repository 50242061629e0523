# DeiT-S on ImageNet-1k; its recipe is the one that HRFormer has as well.
_base_ = './hrformer_s_imagenet_224.py'

model = dict(
    backbone=dict(
        _delete_=True, type='VisionTransformer', arch='deit-small',
        img_size=224, patch_size=16),
    neck=None,
    head=dict(type='VisionTransformerClsHead', in_channels=384))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={
    '.cls_token': dict(decay_mult=0.), '.pos_embed': dict(decay_mult=0.)}))
