# ViT-Large (Table 10), pretrained on ImageNet-21k, with SimpleBaseline's head
# from stride 16. The paper prints no recipe; this is that of HRFormer-B.
_base_ = './hrformer_b_coco_384x288.py'

model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.VisionTransformer', arch='large',
        img_size=(384, 288), out_type='featmap', drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained', prefix='backbone.',
            checkpoint='hrformer_mm://vit-large-p16_in21k-pre-3rdparty_ft-'
            '64xb64_in1k-384_20210928-b20ba619.pth')),
    head=dict(in_channels=1024, deconv_out_channels=(256, 256),
              deconv_kernel_sizes=(4, 4)))
