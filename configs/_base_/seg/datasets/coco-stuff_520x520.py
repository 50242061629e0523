# COCO-Stuff 10k, 171 classes.
_base_ = './short_520.py'

data_root = 'data/coco_stuff10k/'
head = dict(num_classes=171)
train_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset',
        data_root=data_root,
        reduce_zero_label=True,
        data_prefix=dict(
            img_path='images/train2014',
            seg_map_path='annotations/train2014')))
val_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset',
        data_root=data_root,
        reduce_zero_label=True,
        data_prefix=dict(
            img_path='images/test2014', seg_map_path='annotations/test2014')))
test_dataloader = val_dataloader
