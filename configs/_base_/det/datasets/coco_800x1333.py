# COCO 2017, 80 classes; short edge 800, long edge at most 1333.
data_root = 'data/coco/'
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True)
]
resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
flip = dict(type='RandomFlip', prob=0.5)
pack = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[*load, resize, flip, dict(type='PackDetInputs')]))
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=[load[0], resize, load[1], pack]))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', metric=['bbox'],
    ann_file=f'{data_root}annotations/instances_val2017.json')
test_evaluator = val_evaluator
