# TransPose's: Adam from 1e-4 to 1e-5 along a cosine, in batches of 56.
_base_ = './schedule_210e_adam.py'

optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-5)]
train_cfg = dict(max_epochs=240)
auto_scale_lr = dict(base_batch_size=56)  # 8 GPUs, 7 on each
