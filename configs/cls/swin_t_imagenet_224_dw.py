# Swin-T with HRFormer's feed-forward (Table 8).
_base_ = './swin_t_imagenet_224.py'

model = dict(backbone=dict(ffn='dwconv'))
