_base_ = './hrformer_s_coco_800x1333_fcos.py'

model = dict(
    backbone=dict(
        arch='tiny',
        init_cfg=dict(checkpoint='hrformer_t_imagenet_224.pth')),
    neck=dict(in_channels=[18, 36, 72, 144]))
