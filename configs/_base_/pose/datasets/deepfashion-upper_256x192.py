_base_ = './deepfashion-full_256x192.py'

data = dict(subset='upper')
head = dict(out_channels=6)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_upper_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_upper_val.json'))
test_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_upper_test.json'))
