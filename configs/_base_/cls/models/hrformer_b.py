# HRFormer-B.
_base_ = './hrformer_s.py'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.2),
    neck=dict(in_channels=(78, 156, 312, 624)))
