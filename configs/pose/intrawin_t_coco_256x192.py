# Swin-T whose windows are never shifted (Table 8).
_base_ = './swin_t_coco_256x192.py'

model = dict(
    backbone=dict(
        attention='window',
        init_cfg=dict(checkpoint='intrawin_t_imagenet_224.pth')))
