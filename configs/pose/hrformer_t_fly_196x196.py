_base_ = [
    '../_base_/pose/hrformer_t.py',
    '../_base_/pose/fly_196x196.py',
    '../_base_/pose/schedule_small_data.py',
]
model = dict(
    backbone=dict(drop_path_rate=0., init_cfg=None),
    head=dict(
        out_channels=32, decoder=_base_.codec, loss=dict(loss_weight=1000.)),
    test_cfg=dict(shift_heatmap=False))
train_cfg = dict(max_epochs=60, val_interval=10)
