# DeiT-B (Table 10), distilled for 1000 epochs, as ViT-Large is trained.
_base_ = './vit_l_coco_384x288.py'

model = dict(
    backbone=dict(
        type='mmpretrain.DistilledVisionTransformer', arch='deit-base',
        init_cfg=dict(
            checkpoint='hrformer_mm://deit-base-distilled_3rdparty_ft-'
            '16xb32_in1k-384px_20211216-e48d6000.pth')),
    head=dict(in_channels=768))
