# HRFormer-S with HRNet's blocks and fusion (Table 11).
_base_ = './hrformer_s_coco_256x192.py'

model = dict(
    backbone=dict(
        block='conv',
        drop_path_rate=0.,
        upsample='nearest',
        init_cfg=dict(checkpoint='hrnet_s_imagenet_224.pth')))
