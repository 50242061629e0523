# Swin-T with HRFormer's feed-forward (Table 8).
_base_ = './swin_t_pascal-context_520x520.py'

model = dict(
    backbone=dict(
        ffn='dwconv',
        init_cfg=dict(checkpoint='swin_t_imagenet_224_dw.pth')))
