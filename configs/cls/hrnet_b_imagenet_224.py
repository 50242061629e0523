# HRFormer-B with HRNet's blocks, fusion and head (Table 11).
_base_ = './hrformer_b_imagenet_224.py'

model = dict(
    backbone=dict(block='conv', drop_path_rate=0.), neck=dict(dw_conv=False))
