_base_ = [
    '../_base_/pose/models/hrformer_t.py',
    '../_base_/pose/datasets/fly_196x196.py',
    '../_base_/pose/schedules/schedule_small_data_60e.py',
]
model = dict(
    backbone=dict(drop_path_rate=0., init_cfg=None), **_base_.task)
