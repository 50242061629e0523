# Swin-B (Table 10), pretrained on ImageNet-21k and tuned at 384 with windows
# of 12, with SimpleBaseline's head. The recipe is that of HRFormer-B.
_base_ = './hrformer_b_coco_384x288.py'

model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.SwinTransformer', arch='base',
        window_size=12, pad_small_map=True, drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained', prefix='backbone.',
            checkpoint='hrformer_mm://'
            'swin_base_patch4_window12_384_22kto1k-d59b0d1d.pth')),
    head=dict(in_channels=1024, deconv_out_channels=(256, 256, 256),
              deconv_kernel_sizes=(4, 4, 4)))
