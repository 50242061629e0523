# Swin-T (Table 8) with HRFormer's recipe and Swin's stochastic depth.
_base_ = './hrformer_t_imagenet_224.py'

model = dict(
    backbone=dict(
        _delete_=True, type='hrformer_mm.SwinTransformer', out_indices=(3, ),
        drop_path_rate=0.2),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(in_channels=768))
