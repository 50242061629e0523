_base_ = './hrformer_t_fly_196x196.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=32))
