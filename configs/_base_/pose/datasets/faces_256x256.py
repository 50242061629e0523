# Faces, which vary less in size and rotation than bodies do.
_base_ = './square_256x256.py'

best = dict(save_best='NME', rule='less')
turn = dict(_base_.turn, scale_factor=0.25, rotate_factor=30.)
train_dataloader = dict(
    dataset=dict(pipeline=[
        *_base_.load, _base_.flip, turn, _base_.crop, *_base_.finish
    ]))
val_evaluator = dict(_delete_=True, type='NME', norm_mode='keypoint_distance')
test_evaluator = val_evaluator
