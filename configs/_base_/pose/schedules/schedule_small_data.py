# From scratch on small datasets: the steps of the quickstart, for longer.
_base_ = './schedule_minutes.py'

train_cfg = dict(max_epochs=8)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
sync_bn = None
custom_hooks = []
