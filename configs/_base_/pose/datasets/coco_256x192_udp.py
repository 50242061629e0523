# UDP: crops, flips and targets on a continuous image (CVPR 2020).
_base_ = './coco_256x192.py'

codec = dict(_base_.codec, type='UDPHeatmap')
crop = dict(_base_.crop, use_udp=True)
target = dict(type='GenerateTarget', encoder=codec)

train_dataloader = dict(
    dataset=dict(
        pipeline=[*_base_.load, *_base_.augment, crop, target, _base_.pack]))
val_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, crop, _base_.pack]))
test_dataloader = val_dataloader
