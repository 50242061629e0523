# MMPose's for HRNet: Adam without weight decay, else as HRFormer.
_base_ = './schedule_210e.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Adam', lr=5e-4), paramwise_cfg=None)
