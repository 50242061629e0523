# Your own keypoints in COCO's format, with labelled boxes: annotations/
# {train,val}.json, and their images in train/ and val/. Half bodies are not
# cut out, as they are of people.
_base_ = './coco_256x192.py'

data_root = 'data/keypoints/'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=[
            *_base_.load, _base_.augment[0], _base_.augment[2], _base_.crop,
            _base_.target, _base_.pack
        ]))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        bbox_file=None))
test_dataloader = val_dataloader
