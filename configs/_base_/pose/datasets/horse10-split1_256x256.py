# Horse-10, the first of three splits; PCK@0.3, and distances in those of nose
# to eye. Values are those of MMPose 0.x, as 1.x has no config.
_base_ = './square_256x256.py'

data_root = 'data/horse10/'
data = dict(type='Horse10Dataset', data_root=data_root)
head = dict(out_channels=22)
best = dict(save_best='PCK')
train_dataloader = dict(
    dataset=dict(data, ann_file='annotations/horse10-train-split1.json'))
val_dataloader = dict(
    dataset=dict(data, ann_file='annotations/horse10-test-split1.json'))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='PCKAccuracy', thr=0.3),
    dict(type='NME', norm_mode='keypoint_distance'),
]
test_evaluator = val_evaluator
