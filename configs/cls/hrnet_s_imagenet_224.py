# HRFormer-S with HRNet's blocks, fusion and head (Table 11).
_base_ = './hrformer_s_imagenet_224.py'

model = dict(backbone=dict(block='conv'), neck=dict(dw_conv=False))
