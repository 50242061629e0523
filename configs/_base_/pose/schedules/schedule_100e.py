_base_ = './schedule_210e.py'

param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='MultiStepLR', milestones=[50, 70], gamma=0.1),
]
train_cfg = dict(max_epochs=100, val_interval=1)
