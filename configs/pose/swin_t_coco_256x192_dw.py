# Swin-T with HRFormer's feed-forward (Table 8).
_base_ = './swin_t_coco_256x192.py'

model = dict(
    backbone=dict(
        ffn='dwconv',
        init_cfg=dict(checkpoint='swin_t_imagenet_224_dw.pth')))
