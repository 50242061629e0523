# The length of HRNet's cascades.
_base_ = './schedule_24e.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[16, 19], gamma=0.1),
]
train_cfg = dict(max_epochs=20)
