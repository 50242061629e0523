# COFW: occluded faces.
_base_ = './300w_256x256.py'

data_root = 'data/cofw/'
data = dict(type='COFWDataset', data_root=data_root)
head = dict(out_channels=29)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/cofw_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/cofw_test.json'))
test_dataloader = val_dataloader
