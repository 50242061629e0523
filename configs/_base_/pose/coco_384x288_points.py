# Key points as fractions of the input instead of heat maps.
_base_ = './coco_384x288.py'

points = dict(type='RegressionLabel', input_size=_base_.codec.input_size)
train_dataloader = dict(
    dataset=dict(pipeline=[
        *_base_.load, *_base_.augment, _base_.crop,
        dict(type='GenerateTarget', encoder=points), _base_.pack
    ]))
