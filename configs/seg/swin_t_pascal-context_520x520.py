# Swin-T (Table 8) with HRFormer's head. The paper does not print the recipe;
# this is that of HRFormer-T with Swin's stochastic depth.
_base_ = './hrformer_t_pascal-context_520x520.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='hrformer_mm.SwinTransformer',
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained', checkpoint='swin_t_imagenet_224.pth')),
    decode_head=dict(in_channels=(96, 192, 384, 768)))
