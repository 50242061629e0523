_base_ = [
    '../_base_/pose/models/hrformer_t.py',
    '../_base_/pose/datasets/people_112x84.py',
    '../_base_/pose/schedules/schedule_minutes.py',
]
model = dict(
    backbone=dict(drop_path_rate=0., init_cfg=None),
    head=dict(decoder=_base_.codec, loss=dict(loss_weight=1000.)),
    test_cfg=dict(shift_heatmap=False))
