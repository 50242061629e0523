# A copy of configs/seg/custom_labels.py with the classes of CamVid, for
# 20 minutes of two CPU cores and from scratch.
_base_ = [
    '../../../configs/_base_/seg/models/hrformer_s.py',
    '../../../configs/_base_/seg/datasets/labels_520x520.py',
    '../../../configs/_base_/seg/schedules/schedule_80k.py',
]
classes = ('Sky', 'Building', 'Pole', 'Road', 'Pavement', 'Tree', 'SignSymbol',
           'Fence', 'Car', 'Pedestrian', 'Bicyclist')
palette = [(128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128),
           (60, 40, 222), (128, 128, 0), (192, 128, 128), (64, 64, 128),
           (64, 0, 128), (64, 64, 0), (0, 128, 192)]
dataset = dict(
    img_suffix='.jpg', metainfo=dict(classes=classes, palette=palette))

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(init_cfg=None),
    decode_head=dict(num_classes=len(classes)))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='images/test', seg_map_path='labels/test')))
train_cfg = dict(max_iters=150, val_interval=150)
