# HRFormer-S on ADE20K.
_base_ = [
    '../_base_/seg/hrformer_s.py',
    '../_base_/seg/ade20k_520x520.py',
    '../_base_/seg/schedule_150k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head)
