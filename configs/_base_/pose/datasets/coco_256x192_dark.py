# DARK: targets and decoding without rounding to pixels (CVPR 2020).
_base_ = './coco_256x192.py'

codec = dict(_base_.codec, unbiased=True)
target = dict(type='GenerateTarget', encoder=codec)

train_dataloader = dict(
    dataset=dict(pipeline=[
        *_base_.load, *_base_.augment, _base_.crop, target, _base_.pack
    ]))
