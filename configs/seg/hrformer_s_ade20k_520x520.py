# HRFormer-S on ADE20K.
_base_ = [
    '../_base_/seg/models/hrformer_s.py',
    '../_base_/seg/datasets/ade20k_520x520.py',
    '../_base_/seg/schedules/schedule_150k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head)
