# CamVid with the 11 classes and the split of SegNet, images of 480x360; small
# crops, whole windows of 7 on the finest map, and tests on whole images.
_base_ = './loaders.py'

data_root = 'data/camvid/'
crop_size = (196, 252)
metainfo = dict(
    classes=('Sky', 'Building', 'Pole', 'Road', 'Pavement', 'Tree',
             'SignSymbol', 'Fence', 'Car', 'Pedestrian', 'Bicyclist'),
    palette=[(128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128),
             (60, 40, 222), (128, 128, 0), (192, 128, 128), (64, 64, 128),
             (64, 0, 128), (64, 64, 0), (0, 128, 192)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(480, 360),
        ratio_range=(0.5, 1.5),
        keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [test_pipeline[0], _base_.views]
samples = dict(
    type='BaseSegDataset',
    data_root=data_root,
    img_suffix='.jpg',
    metainfo=metainfo,
    pipeline=test_pipeline)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        samples,
        data_prefix=dict(
            img_path='images/train', seg_map_path='labels/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        samples,
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val')))
test_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        samples,
        data_prefix=dict(img_path='images/test', seg_map_path='labels/test')))
