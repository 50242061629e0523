# MMPose's HRNet-W32 under the recipe of HRFormer.
_base_ = [
    '../_base_/pose/models/hrnet_w32.py',
    '../_base_/pose/datasets/openfield_252x336.py',
    '../_base_/pose/schedules/schedule_small_data_60e.py',
]
model = dict(backbone=dict(init_cfg=None), **_base_.task)
