# MMPose's HRNet-W32 under the recipe of HRFormer.
_base_ = [
    '../_base_/pose/models/hrnet_w32.py',
    '../_base_/pose/datasets/fly_196x196.py',
    '../_base_/pose/schedules/schedule_small_data_60e.py',
]
model = dict(backbone=dict(init_cfg=None), **_base_.task)
