# COCO-Stuff 164k: the images of COCO 2017. Its labels start at 0.
_base_ = './coco-stuff_520x520.py'

data_root = 'data/coco_stuff164k/'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        reduce_zero_label=False,
        data_prefix=dict(
            img_path='images/train2017',
            seg_map_path='annotations/train2017')))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        reduce_zero_label=False,
        data_prefix=dict(
            img_path='images/val2017', seg_map_path='annotations/val2017')))
test_dataloader = val_dataloader
