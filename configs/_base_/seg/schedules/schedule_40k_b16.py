_base_ = './schedule_60k.py'

train_cfg = dict(max_iters=40000, val_interval=4000)
