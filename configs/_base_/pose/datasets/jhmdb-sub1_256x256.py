# JHMDB, the first of its three splits; results are the mean of the three.
_base_ = './faces_256x256.py'

data_root = 'data/jhmdb/'
data = dict(type='JhmdbDataset', data_root=data_root)
head = dict(out_channels=15)
best = dict(_delete_=True, save_best='PCK')
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/Sub1_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/Sub1_test.json'))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='JhmdbPCKAccuracy',
    thr=0.2,
    norm_item=['bbox', 'torso'])
test_evaluator = val_evaluator
