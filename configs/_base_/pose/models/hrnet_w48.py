_base_ = './hrnet_w32.py'

model = dict(
    backbone=dict(
        arch=dict(channels=(48, 96, 192, 384)),
        init_cfg=dict(checkpoint='hrnetv2_w48_imagenet_pretrained.pth')),
    head=dict(in_channels=48))
