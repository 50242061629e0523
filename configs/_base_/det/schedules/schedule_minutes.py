# From scratch on two CPU cores: large steps that fall off within minutes.
_base_ = './schedule_24e.py'

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(lr=1.5e-3),
    # MMDetection starts the weights of a mask of one class a hundred times
    # larger than those of other layers.
    paramwise_cfg=dict(
        custom_keys={'mask_head.conv_logits': dict(lr_mult=10.)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', convert_to_iter_based=True, eta_min=1e-6),
]
train_cfg = dict(max_epochs=5, val_interval=2)
default_hooks = dict(
    checkpoint=dict(interval=2, save_best=None), logger=dict(interval=10))
sync_bn = None
