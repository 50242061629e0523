# Your own images at 224, in train/CLASS/ and val/CLASS/.
_base_ = './imagenet_224.py'
data_root = 'data/folder/'
train_dataloader = dict(
    batch_size=64, drop_last=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root=data_root,
        data_prefix='train', pipeline=_base_.train_pipeline))
val_dataloader = dict(
    batch_size=64,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root=data_root,
        data_prefix='val', pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, ))
test_evaluator = val_evaluator
