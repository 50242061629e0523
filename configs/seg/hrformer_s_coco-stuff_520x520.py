# HRFormer-S on COCO-Stuff 10k (Table 5).
_base_ = [
    '../_base_/seg/models/hrformer_s.py',
    '../_base_/seg/datasets/coco-stuff_520x520.py',
    '../_base_/seg/schedules/schedule_60k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head)
