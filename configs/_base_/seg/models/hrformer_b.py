_base_ = './hrformer_s.py'

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='hrt_base.pth')),
    decode_head=dict(in_channels=(78, 156, 312, 624)))
