# HRFormer-T with HRNet's blocks and fusion (Table 11).
_base_ = './hrformer_t_lspet_112x112.py'

model = dict(backbone=dict(block='conv', upsample='nearest'))
