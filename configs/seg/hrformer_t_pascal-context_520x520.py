# HRFormer-T on PASCAL-Context (Tables 7, 9 and 11).
_base_ = [
    '../_base_/seg/models/hrformer_t.py',
    '../_base_/seg/datasets/pascal-context_520x520.py',
    '../_base_/seg/schedules/schedule_60k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head)
