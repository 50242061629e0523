# The README of the official code says batches of 8, its configs have 16.
_base_ = './schedule_60k.py'

train_cfg = dict(max_iters=150000, val_interval=10000)
