# HRFormer-B on Cityscapes, windows of 15 (Table 5).
_base_ = [
    '../_base_/seg/models/hrformer_b.py',
    '../_base_/seg/datasets/cityscapes_512x1024_ms7.py',
    '../_base_/seg/schedules/schedule_80k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(window_size=15, drop_path_rate=0.4),
    decode_head=_base_.head)
