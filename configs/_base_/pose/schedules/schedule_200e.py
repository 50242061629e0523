# PRTR's: AdamW with a small rate and tight clipping, in batches of 64.
_base_ = './schedule_210e_adam.py'

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1))
param_scheduler = [dict(type='MultiStepLR', milestones=[70, 95], gamma=0.5)]
train_cfg = dict(max_epochs=200)
auto_scale_lr = dict(base_batch_size=64)  # 8 GPUs, 8 on each
