# Mapillary Vistas 2.0, 124 classes.
_base_ = './mapillary-v1_512x1024.py'

data_root = 'data/mapillary/'
head = dict(num_classes=124)
train_dataloader = dict(
    dataset=dict(
        type='MapillaryDataset_v2',
        data_root=data_root,
        data_prefix=dict(
            img_path='training/images', seg_map_path='training/v2.0/labels')))
val_dataloader = dict(
    dataset=dict(
        type='MapillaryDataset_v2',
        data_root=data_root,
        data_prefix=dict(
            img_path='validation/images',
            seg_map_path='validation/v2.0/labels')))
test_dataloader = val_dataloader
