# HRF: 45 images of 3504x2336.
_base_ = './vessels.py'

data_root = 'data/HRF/'
crop_size = (256, 256)
scale = (2336, 3504)
slide = dict(mode='slide', crop_size=crop_size, stride=(170, 170))
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
data = dict(type='HRFDataset', data_root=data_root)
train_dataloader = dict(dataset=dict(data, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data, pipeline=test_pipeline))
test_dataloader = val_dataloader
