# MMSegmentation's: SGD and polynomial decay, in full precision.
_base_ = './schedule_80k.py'

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005))
param_scheduler = dict(
    _delete_=True,
    type='PolyLR',
    eta_min=1e-4,
    power=0.9,
    by_epoch=False)
