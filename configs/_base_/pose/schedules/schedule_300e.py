# TokenPose's: Adam, falling at epochs 200 and 260, in batches of 64.
_base_ = './schedule_210e_adam.py'

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[200, 260], gamma=0.1),
]
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=64)  # 8 GPUs, 8 on each
