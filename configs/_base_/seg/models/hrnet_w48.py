# HRNet-W48 with the same head (Table 5), trained as HRFormer is. It fuses as
# the official segmentation code does; its weights for ImageNet are those of
# the HRNet authors.
_base_ = './hrformer_s.py'

model = dict(
    backbone=dict(
        block='conv',
        arch=dict(
            _delete_=True,
            channels=(48, 96, 192, 384),
            heads=(1, 1, 1, 1),
            modules=(1, 4, 3),
            blocks=4),
        drop_path_rate=0.,
        upsample='bilinear_aligned',
        init_cfg=dict(checkpoint='hrnetv2_w48_imagenet_pretrained.pth')),
    decode_head=dict(in_channels=(48, 96, 192, 384), aux_channels=720))
