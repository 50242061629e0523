# Drawn people with their masks in the layout of COCO's keypoints.
_base_ = './coco_800x1333_masks.py'

data_root = 'data/people_boxes/'
metainfo = dict(classes=('person', ), palette=[(220, 20, 60)])
resize = dict(type='Resize', scale=(128, 96), keep_ratio=True)
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/person_keypoints_train2017.json',
        filter_cfg=dict(min_size=8),
        pipeline=[
            *_base_.load, resize, _base_.flip,
            dict(type='PackDetInputs')
        ]))
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/person_keypoints_val2017.json',
        pipeline=[_base_.load[0], resize, _base_.load[1], _base_.pack]))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=f'{data_root}annotations/person_keypoints_val2017.json')
test_evaluator = val_evaluator
