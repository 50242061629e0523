# Swin-T whose windows are never shifted (Table 8).
_base_ = './swin_t_imagenet_224.py'

model = dict(backbone=dict(attention='window'))
