# DeiT-B on ImageNet-1k (Table 6), without its moving average of weights.
_base_ = './deit_s_imagenet_224.py'

model = dict(
    backbone=dict(arch='deit-base', drop_path_rate=0.1),
    head=dict(in_channels=768))
