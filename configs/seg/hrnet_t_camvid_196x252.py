# HRFormer-T with HRNet's blocks and fusion (Table 11).
_base_ = './hrformer_t_camvid_196x252.py'

model = dict(backbone=dict(block='conv', upsample='bilinear_aligned'))
