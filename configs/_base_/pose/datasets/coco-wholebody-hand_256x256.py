# The hands of COCO-WholeBody 1.0.
_base_ = './hands_256x256.py'

data_root = 'data/coco/'
train_dataloader = dict(
    dataset=dict(
        type='CocoWholeBodyHandDataset',
        data_root=data_root,
        ann_file='annotations/coco_wholebody_train_v1.0.json',
        data_prefix=dict(img='train2017/')))
val_dataloader = dict(
    dataset=dict(
        type='CocoWholeBodyHandDataset',
        data_root=data_root,
        ann_file='annotations/coco_wholebody_val_v1.0.json',
        data_prefix=dict(img='val2017/')))
test_dataloader = val_dataloader
