# Mapillary Vistas 1.2, 66 classes.
_base_ = './resize_crop.py'

data_root = 'data/mapillary/'
crop_size = (512, 1024)
scale = (2048, 1024)
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
head = dict(num_classes=66)
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type='MapillaryDataset_v1',
        data_root=data_root,
        data_prefix=dict(
            img_path='training/images', seg_map_path='training/v1.2/labels'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type='MapillaryDataset_v1',
        data_root=data_root,
        data_prefix=dict(
            img_path='validation/images',
            seg_map_path='validation/v1.2/labels'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
