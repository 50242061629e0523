# MacaquePose; boxes are labelled.
_base_ = './coco_256x192.py'

data_root = 'data/macaque/'
data = dict(
    type='MacaqueDataset',
    data_root=data_root,
    data_prefix=dict(img='images/'))
head = dict(decoder=_base_.codec)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/macaque_train.json'))
val_dataloader = dict(
    dataset=dict(
        data, ann_file='annotations/macaque_test.json', bbox_file=None))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}annotations/macaque_test.json')
test_evaluator = val_evaluator
