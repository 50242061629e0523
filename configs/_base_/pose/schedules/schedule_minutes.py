# For a first look, from scratch: large steps that fall off within minutes.
_base_ = './schedule_210e.py'

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', convert_to_iter_based=True, eta_min=1e-6),
]
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1, save_best=None))
