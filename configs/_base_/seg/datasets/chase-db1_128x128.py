# CHASE-DB1: 28 images of 999x960.
_base_ = './vessels.py'

data_root = 'data/CHASE_DB1/'
crop_size = (128, 128)
scale = (960, 999)
slide = dict(mode='slide', crop_size=crop_size, stride=(85, 85))
train_pipeline = [
    *_base_.load,
    dict(_base_.resize, scale=scale),
    dict(_base_.crop, crop_size=crop_size),
    *_base_.augment,
]
test_pipeline = [
    _base_.load[0],
    dict(_base_.test_resize, scale=scale),
    _base_.load[1],
    _base_.pack,
]
tta_pipeline = [*test_pipeline[:2], _base_.views]
data = dict(type='ChaseDB1Dataset', data_root=data_root)
train_dataloader = dict(dataset=dict(data, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data, pipeline=test_pipeline))
test_dataloader = val_dataloader
