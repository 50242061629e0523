# DeepFashion's landmarks of full-body clothes; boxes are labelled.
_base_ = './keypoints_256x192.py'

data_root = 'data/fld/'
data = dict(
    type='DeepFashionDataset',
    data_root=data_root,
    data_prefix=dict(img='img/'),
    subset='full')
head = dict(out_channels=8, decoder=_base_.codec)
best = dict(save_best='AUC')
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_full_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_full_val.json'))
test_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_full_test.json'))
val_evaluator = [
    dict(type='PCKAccuracy', thr=0.2),
    dict(type='AUC'),
    dict(type='EPE'),
]
test_evaluator = val_evaluator
