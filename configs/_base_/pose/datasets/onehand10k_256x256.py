# OneHand10K.
_base_ = './hands_256x256.py'

data_root = 'data/onehand10k/'
data = dict(type='OneHand10KDataset', data_root=data_root)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/onehand10k_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/onehand10k_test.json'))
test_dataloader = val_dataloader
