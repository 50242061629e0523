# PASCAL-Context, 59 classes. The official script trains without hard example
# mining, although its name and the README say otherwise.
_base_ = './short_520.py'

data_root = 'data/VOCdevkit/VOC2010/'
head = dict(
    num_classes=59,
    loss_decode=dict(
        _delete_=True, type='hrformer_mm.PixelCrossEntropyLoss'))
train_dataloader = dict(
    dataset=dict(
        type='PascalContextDataset59',
        data_root=data_root,
        data_prefix=dict(
            img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/train.txt'))
val_dataloader = dict(
    dataset=dict(
        type='PascalContextDataset59',
        data_root=data_root,
        data_prefix=dict(
            img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt'))
test_dataloader = val_dataloader
