_base_ = [
    '../_base_/pose/models/hrformer_t.py',
    '../_base_/pose/datasets/lspet_112x112.py',
    '../_base_/pose/schedules/schedule_small_data.py',
]
model = dict(
    backbone=dict(drop_path_rate=0., init_cfg=None),
    head=dict(
        out_channels=14,
        decoder=_base_.codec,
        loss=dict(loss_weight=1000.)),
    test_cfg=dict(shift_heatmap=False))
