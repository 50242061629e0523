# HRFormer-B with HRNet's blocks and fusion (Table 11).
_base_ = './hrformer_b_pascal-context_520x520.py'

model = dict(
    backbone=dict(
        block='conv',
        drop_path_rate=0.,
        upsample='bilinear_aligned',
        init_cfg=dict(checkpoint='hrnet_b_imagenet_224.pth')))
