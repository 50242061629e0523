# AFLW; errors are relative to the size of the box.
_base_ = './faces_256x256.py'

data_root = 'data/aflw/'
data = dict(
    type='AFLWDataset', data_root=data_root, data_prefix=dict(img='images/'))
head = dict(out_channels=19)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/face_landmarks_aflw_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/face_landmarks_aflw_test.json'))
test_dataloader = val_dataloader
val_evaluator = dict(norm_mode='use_norm_item', norm_item='bbox_size')
test_evaluator = val_evaluator
