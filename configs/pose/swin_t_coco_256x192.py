# Swin-T (Table 8) with SimpleBaseline's head. The paper does not print the
# recipe; this is that of HRFormer-T with Swin's stochastic depth.
_base_ = './hrformer_t_coco_256x192.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='hrformer_mm.SwinTransformer',
        out_indices=(3, ),
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained', checkpoint='swin_t_imagenet_224.pth')),
    head=dict(in_channels=768, deconv_out_channels=(256, 256, 256),
              deconv_kernel_sizes=(4, 4, 4)))
