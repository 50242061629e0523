# 300W.
_base_ = './faces_256x256.py'

data_root = 'data/300w/'
data = dict(
    type='Face300WDataset',
    data_root=data_root,
    data_prefix=dict(img='images/'))
codec = dict(_base_.codec, sigma=1.5)
head = dict(out_channels=68, decoder=codec)
train_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/face_landmarks_300w_train.json',
        pipeline=[
            *_base_.load, _base_.flip, _base_.turn, _base_.crop,
            dict(type='GenerateTarget', encoder=codec), _base_.pack
        ]))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/face_landmarks_300w_valid.json'))
test_dataloader = val_dataloader
