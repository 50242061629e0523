# HRNet-W32 (Table 3), with the data of HRFormer's configs. Its weights for
# ImageNet are those of the HRNet authors.
_base_ = './hrformer_s.py'

model = dict(
    backbone=dict(
        block='conv',
        arch=dict(
            _delete_=True,
            channels=(32, 64, 128, 256),
            heads=(1, 1, 1, 1),
            modules=(1, 4, 3),
            blocks=4),
        drop_path_rate=0.,
        upsample='nearest',
        init_cfg=dict(checkpoint='hrnetv2_w32_imagenet_pretrained.pth')))
