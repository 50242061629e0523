# ISPRS Vaihingen, 6 classes, cut into tiles of 512.
_base_ = './potsdam_512x512.py'

data_root = 'data/vaihingen/'
head = dict(num_classes=6)
train_dataloader = dict(
    dataset=dict(
        type='ISPRSDataset',
        data_root=data_root,
        data_prefix=dict(
            img_path='img_dir/train', seg_map_path='ann_dir/train')))
val_dataloader = dict(
    dataset=dict(
        type='ISPRSDataset',
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/val', seg_map_path='ann_dir/val')))
test_dataloader = val_dataloader
