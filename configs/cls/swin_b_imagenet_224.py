# Swin-B, likewise with its own stochastic depth.
_base_ = './swin_s_imagenet_224.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.5),
    head=dict(in_channels=1024))
