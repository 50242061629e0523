_base_ = './schedule_80k.py'

train_cfg = dict(max_iters=240000, val_interval=24000)
