# ISPRS Potsdam, 6 classes, cut into tiles of 512.
_base_ = './resize_crop.py'

data_root = 'data/potsdam/'
crop_size = (512, 512)
scale = (512, 512)
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
head = dict(num_classes=6)
train_dataloader = dict(
    dataset=dict(
        type='PotsdamDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='img_dir/train', seg_map_path='ann_dir/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type='PotsdamDataset',
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
