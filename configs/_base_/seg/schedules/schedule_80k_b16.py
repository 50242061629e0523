# As for Cityscapes, in batches of 16.
_base_ = './schedule_60k.py'

train_cfg = dict(max_iters=80000, val_interval=8000)
