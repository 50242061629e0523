_base_ = [
    '../_base_/seg/models/hrformer_s.py',
    '../_base_/seg/datasets/vaihingen_512x512.py',
    '../_base_/seg/schedules/schedule_80k_b16.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size), decode_head=_base_.head)
