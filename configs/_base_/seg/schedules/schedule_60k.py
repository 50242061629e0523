_base_ = './schedule_80k.py'

train_cfg = dict(max_iters=60000, val_interval=5000)
auto_scale_lr = dict(base_batch_size=16)  # 8 GPUs, 2 on each
