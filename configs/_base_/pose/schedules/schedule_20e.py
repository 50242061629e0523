# For models that were trained on a larger dataset of the same kind before:
# --cfg-options load_from=CHECKPOINT.
_base_ = './schedule_210e.py'

param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='MultiStepLR', milestones=[10, 15], gamma=0.1),
]
train_cfg = dict(max_epochs=20, val_interval=1)
