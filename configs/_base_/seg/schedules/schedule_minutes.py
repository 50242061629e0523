# From scratch on two CPU cores: large steps in full precision.
_base_ = './schedule_80k.py'

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=2e-3))
param_scheduler = dict(warmup=50, start_ratio=0.01)
train_cfg = dict(max_iters=240, val_interval=80)
default_hooks = dict(
    checkpoint=dict(interval=80, max_keep_ckpts=1, save_best=None),
    logger=dict(interval=10))
sync_bn = None
