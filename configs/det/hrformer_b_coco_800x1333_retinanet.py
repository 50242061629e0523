_base_ = './hrformer_s_coco_800x1333_retinanet.py'

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint='hrt_base.pth')),
    neck=dict(in_channels=[78, 156, 312, 624]))
