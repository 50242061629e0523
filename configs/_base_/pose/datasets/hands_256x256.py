# Hands, which point in all directions.
_base_ = './square_256x256.py'

head = dict(out_channels=21)
best = dict(save_best='AUC')
turn = dict(_base_.turn, scale_factor=0.3, rotate_factor=90.)
train_dataloader = dict(
    dataset=dict(pipeline=[
        *_base_.load, _base_.flip, turn, _base_.crop, *_base_.finish
    ]))
val_evaluator = [
    dict(type='PCKAccuracy', thr=0.2),
    dict(type='AUC'),
    dict(type='EPE'),
]
test_evaluator = val_evaluator
