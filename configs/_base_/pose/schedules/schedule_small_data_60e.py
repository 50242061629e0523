# The same for an hour of training, evaluated every ten epochs.
_base_ = './schedule_small_data.py'

train_cfg = dict(max_epochs=60, val_interval=10)
