# MPII, by PCKh; people are given by centres and heights.
_base_ = './square_256x256.py'

data_root = 'data/mpii/'
data = dict(
    type='MpiiDataset', data_root=data_root, data_prefix=dict(img='images/'))
head = dict(out_channels=16)
best = dict(save_best='PCK')
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/mpii_train.json'))
val_dataloader = dict(
    dataset=dict(
        data,
        ann_file='annotations/mpii_val.json',
        headbox_file=f'{data_root}annotations/mpii_gt_val.mat'))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='MpiiPCKAccuracy')
test_evaluator = val_evaluator
