_base_ = './hrformer_t_openfield_252x336.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=32))
