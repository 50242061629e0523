# Windows of 11 in all branches (appendix).
_base_ = './hrformer_s_cityscapes_512x1024.py'

model = dict(backbone=dict(window_size=11))
