# Nobody published a recipe for T on COCO; this is that of S.
_base_ = './hrformer_s.py'

model = dict(
    backbone=dict(
        arch='tiny',
        # Ours: the released file of T gives 2 % top-1 with its own code.
        init_cfg=dict(checkpoint='hrformer_t_imagenet_224.pth')),
    head=dict(in_channels=18))
