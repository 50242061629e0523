# Swin-T without shifts, with HRFormer's feed-forward (Table 8).
_base_ = './intrawin_t_imagenet_224.py'

model = dict(backbone=dict(ffn='dwconv'))
