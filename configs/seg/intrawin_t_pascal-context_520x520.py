# Swin-T whose windows are never shifted (Table 8).
_base_ = './swin_t_pascal-context_520x520.py'

model = dict(
    backbone=dict(
        attention='window',
        init_cfg=dict(checkpoint='intrawin_t_imagenet_224.pth')))
