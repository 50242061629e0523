# HRFormer-S on PASCAL-Context, background included.
_base_ = [
    '../_base_/seg/models/hrformer_s.py',
    '../_base_/seg/datasets/pascal-context-60_520x520.py',
    '../_base_/seg/schedules/schedule_60k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head)
