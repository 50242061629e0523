# HRFormer-B on COCO-Stuff 10k, windows of 7.
_base_ = [
    '../_base_/seg/models/hrformer_b.py',
    '../_base_/seg/datasets/coco-stuff_520x520.py',
    '../_base_/seg/schedules/schedule_60k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=_base_.head)
