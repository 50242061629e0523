_base_ = [
    '../_base_/pose/hrformer_t.py',
    '../_base_/pose/fly_196x196.py',
    '../_base_/pose/schedule_small_data_60e.py',
]
model = dict(
    backbone=dict(drop_path_rate=0., init_cfg=None), **_base_.task)
