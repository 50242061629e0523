# Data of TransPose and TokenPose.
_base_ = ['./coco_384x288_udp.py', './udp-dark.py']

codec = dict(_base_.codec, **_base_.unbiased)
train_dataloader = dict(
    dataset=dict(pipeline=[
        *_base_.load, *_base_.augment[:-1], _base_.turn, _base_.crop,
        dict(type='GenerateTarget', encoder=codec), _base_.pack
    ]))
