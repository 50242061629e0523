# MMPose's HRNet-W32 under the recipe of HRFormer.
_base_ = [
    '../_base_/pose/hrnet_w32.py',
    '../_base_/pose/fly_196x196.py',
    '../_base_/pose/schedule_small_data_60e.py',
]
model = dict(backbone=dict(init_cfg=None), **_base_.task)
