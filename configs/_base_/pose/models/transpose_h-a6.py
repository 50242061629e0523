# TransPose-H-A6: 6 layers of attention among all pixels, one head.
_base_ = './hrnet_w48_stage3.py'

model = dict(
    neck=dict(
        type='hrformer_mm.TransPoseNeck',
        in_channels=48,
        dim=96,
        hidden=192,
        depth=6,
        heads=1),
    head=dict(in_channels=96))
