_base_ = './hrformer_s.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='hrt_base.pth')),
    head=dict(in_channels=78))
