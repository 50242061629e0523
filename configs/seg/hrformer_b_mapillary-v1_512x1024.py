_base_ = [
    '../_base_/seg/models/hrformer_b.py',
    '../_base_/seg/datasets/mapillary-v1_512x1024.py',
    '../_base_/seg/schedules/schedule_240k.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(drop_path_rate=0.4),
    decode_head=_base_.head)
