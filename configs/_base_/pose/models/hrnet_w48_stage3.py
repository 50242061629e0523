# HRNet-W48 without stage 4, the stem of TransPose-H and TokenPose-L.
_base_ = './hrnet_w48.py'

model = dict(
    backbone=dict(
        arch=dict(channels=(48, 96, 192), heads=(1, 1, 1), modules=(1, 4))))
