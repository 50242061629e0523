_base_ = './deepfashion-full_256x192.py'

data = dict(subset='lower')
head = dict(out_channels=4)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_lower_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_lower_val.json'))
test_dataloader = dict(
    dataset=dict(data, ann_file='annotations/fld_lower_test.json'))
