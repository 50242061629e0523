# FreiHAND, whose images of 224x224 are cropped to the hand already.
_base_ = './hands_256x256.py'

data_root = 'data/freihand/'
data = dict(type='FreiHandDataset', data_root=data_root)
codec = dict(
    type='MSRAHeatmap', input_size=(224, 224), heatmap_size=(56, 56), sigma=2)
head = dict(decoder=codec)
load = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale', padding=0.8)]
crop = dict(type='TopdownAffine', input_size=codec['input_size'])
test_pipeline = [*load, crop, _base_.pack]
train_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/freihand_train.json',
        pipeline=[
            *load, _base_.flip, _base_.turn, crop,
            dict(type='GenerateTarget', encoder=codec), _base_.pack
        ]))
val_dataloader = dict(
    dataset=dict(
        data, ann_file='annotations/freihand_val.json',
        pipeline=test_pipeline))
test_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/freihand_test.json',
        pipeline=test_pipeline))
