# HRFormer-T with HRNet's blocks and fusion (Table 11).
_base_ = './hrformer_t_pascal-context_520x520.py'

model = dict(
    backbone=dict(
        block='conv',
        drop_path_rate=0.,
        upsample='bilinear_aligned',
        init_cfg=dict(checkpoint='hrnet_t_imagenet_224.pth')))
