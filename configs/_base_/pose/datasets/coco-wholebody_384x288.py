_base_ = './coco-wholebody_256x192.py'

codec = dict(
    type='MSRAHeatmap', input_size=(288, 384), heatmap_size=(72, 96), sigma=3)
head = dict(decoder=codec)
crop = dict(type='TopdownAffine', input_size=codec['input_size'])
target = dict(type='GenerateTarget', encoder=codec)

train_dataloader = dict(
    dataset=dict(
        pipeline=[*_base_.load, *_base_.augment, crop, target, _base_.pack]))
val_dataloader = dict(dataset=dict(pipeline=[*_base_.load, crop, _base_.pack]))
test_dataloader = val_dataloader
