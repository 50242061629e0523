# WFLW.
_base_ = './faces_256x256.py'

data_root = 'data/wflw/'
data = dict(
    type='WFLWDataset', data_root=data_root, data_prefix=dict(img='images/'))
head = dict(out_channels=98)
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/face_landmarks_wflw_train.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/face_landmarks_wflw_test.json'))
test_dataloader = val_dataloader
