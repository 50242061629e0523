# MMPose's HRNet-W32 under the recipe of HRFormer.
_base_ = [
    '../_base_/pose/hrnet_w32.py',
    '../_base_/pose/openfield_252x336.py',
    '../_base_/pose/schedule_small_data.py',
]
model = dict(
    backbone=dict(init_cfg=None),
    head=dict(
        out_channels=4, decoder=_base_.codec, loss=dict(loss_weight=1000.)),
    test_cfg=dict(shift_heatmap=False))
train_cfg = dict(max_epochs=60, val_interval=10)
