# HRFormer-T.
_base_ = './hrformer_s.py'
model = dict(
    backbone=dict(arch='tiny'), neck=dict(in_channels=(18, 36, 72, 144)))
