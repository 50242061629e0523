_base_ = './coco.py'

codec = dict(
    type='MSRAHeatmap', input_size=(192, 256), heatmap_size=(48, 64), sigma=2)
crop = dict(type='TopdownAffine', input_size=codec['input_size'])
target = dict(type='GenerateTarget', encoder=codec)

train_dataloader = dict(
    dataset=dict(
        pipeline=[*_base_.load, *_base_.augment, crop, target, _base_.pack]))
val_dataloader = dict(
    dataset=dict(pipeline=[*_base_.load, crop, _base_.pack]))
test_dataloader = val_dataloader
