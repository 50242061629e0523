# Squares of 256 pixels around labelled boxes; a dataset that inherits this
# sets its type, its files, its metric and the number of its keypoints.
_base_ = './coco.py'

codec = dict(
    type='MSRAHeatmap', input_size=(256, 256), heatmap_size=(64, 64), sigma=2)
head = dict(decoder=codec)
crop = dict(type='TopdownAffine', input_size=codec['input_size'])
finish = [dict(type='GenerateTarget', encoder=codec), _base_.pack]
flip, half_body, turn = _base_.augment

train_dataloader = dict(
    dataset=dict(
        _delete_=True, pipeline=[*_base_.load, flip, turn, crop, *finish]))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        test_mode=True,
        pipeline=[*_base_.load, crop, _base_.pack]))
test_dataloader = val_dataloader
