_base_ = [
    '../_base_/pose/hrformer_t.py',
    '../_base_/pose/people_112x84.py',
    '../_base_/pose/schedule_210e.py',
]
model = dict(
    backbone=dict(drop_path_rate=0., init_cfg=None),
    head=dict(decoder=_base_.codec, loss=dict(loss_weight=1000.)),
    test_cfg=dict(shift_heatmap=False))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', convert_to_iter_based=True, eta_min=1e-6),
]
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1, save_best=None))
