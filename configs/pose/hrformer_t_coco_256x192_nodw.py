# The feed-forward without its depth-wise convolution (Table 7).
_base_ = './hrformer_t_coco_256x192.py'

model = dict(
    backbone=dict(
        ffn='nodw',
        init_cfg=dict(checkpoint='hrformer_t_imagenet_224_nodw.pth')))
