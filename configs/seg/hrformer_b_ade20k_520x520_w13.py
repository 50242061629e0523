# HRFormer-B on ADE20K, windows of 13.
_base_ = './hrformer_b_ade20k_520x520.py'

model = dict(backbone=dict(window_size=13))
